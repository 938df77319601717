//! Tests of the vGIC: its registers, and that no interrupt is lost or doubled on the way through the list registers.

use super::lists::MAX_LISTS;
use super::*;
use crate::exit::Access;
use alloc::vec::Vec;

const GICD: u64 = 0x800_0000;
const GICR: u64 = 0x80a_0000;
const PENDING: u64 = 1 << 62;
const ACTIVE: u64 = 1 << 63;

fn access(ipa: u64, width: u8, write: bool) -> Access {
    Access {
        ipa,
        width,
        write,
        register: 0,
        sign_extend: false,
        wide: true,
    }
}

fn read(gic: &Vgic, ipa: u64, width: u8) -> u64 {
    gic.read(gic.frame(ipa).unwrap(), access(ipa, width, false))
}

fn write(gic: &mut Vgic, writer: u8, ipa: u64, width: u8, value: u64) -> u64 {
    let frame = gic.frame(ipa).unwrap();
    gic.write(writer, frame, access(ipa, width, true), value)
        .kick
}

/// Two vCPUs, forwarding on, all interrupts enabled at priority 0xa0.
fn ready() -> Vgic {
    let mut gic = Vgic::new(2);
    assert!(gic.place(GICD, GICR));
    write(&mut gic, 0, GICD, 4, 2);
    for n in 1..9 {
        write(&mut gic, 0, GICD + 0x100 + 4 * n, 4, u64::MAX);
    }
    for vcpu in 0..2 {
        write(&mut gic, 0, GICR + 0x2_0000 * vcpu + 0x1_0100, 4, u64::MAX);
    }
    for n in 32..288 {
        write(&mut gic, 0, GICD + 0x400 + n, 1, 0xa0);
    }
    gic
}

/// The guest's side of list registers.
impl ListRegisters {
    fn acknowledge(&mut self) -> Option<u32> {
        let best = self
            .values
            .iter_mut()
            .filter(|value| **value >> 62 == 1)
            .min_by_key(|value| **value >> 48 & 0xff)?;
        *best = *best & !PENDING | ACTIVE;
        u32::try_from(*best & 0xffff_ffff).ok()
    }

    fn end(&mut self, intid: u32) {
        let value = self
            .values
            .iter_mut()
            .find(|value| **value & 0xffff_ffff == u64::from(intid) && **value & ACTIVE != 0)
            .expect("it is active in a list register");
        *value &= !ACTIVE;
    }

    fn states(&self) -> Vec<(u32, u64)> {
        let used = self.values.iter().take(self.used);
        used.map(|value| (u32::try_from(value & 0xffff_ffff).unwrap(), value >> 62))
            .collect()
    }
}

#[test]
fn frames_are_found_and_nothing_beside_them() {
    let gic = ready();
    assert_eq!(gic.frame(GICD + 0xffe8), Some(Frame::Distributor(0xffe8)));
    assert_eq!(
        gic.frame(GICR + 0x3_0080),
        Some(Frame::Redistributor(1, 0x1_0080))
    );
    for ipa in [
        0,
        GICD - 1,
        GICD + 0x1_0000,
        GICR - 1,
        GICR + 0x4_0000,
        u64::MAX,
    ] {
        assert_eq!(gic.frame(ipa), None);
    }
    let mut other = Vgic::new(2);
    assert!(!other.place(GICD + 0x1000, GICR));
    assert!(!other.place(GICD, GICD));
    assert!(!other.place(0xffff_ffff_ffff_0000, GICR));
    assert!(!other.place(GICR + 0x3_0000, GICR));
}

#[test]
fn identification_is_that_of_a_gicv3() {
    let gic = ready();
    assert_eq!(read(&gic, GICD + 0xffe8, 4), 0x30);
    assert_eq!(read(&gic, GICR + 0xffe8, 4), 0x30);
    assert_eq!(read(&gic, GICD + 4, 4) & 0x1f, 8);
    assert_eq!(read(&gic, GICD, 4), 1 << 6 | 1 << 4 | 2);
    assert_eq!(read(&gic, GICR + 8, 8), 0);
    assert_eq!(read(&gic, GICR + 0x2_0008, 8), 1 << 32 | 1 << 8 | 1 << 4);
}

#[test]
fn registers_take_bytes_words_and_double_words() {
    let mut gic = ready();
    write(&mut gic, 0, GICD + 0x400 + 33, 1, 0x1ff);
    assert_eq!(read(&gic, GICD + 0x400 + 32, 4), 0xa0a0_ffa0);
    assert_eq!(read(&gic, GICD + 0x400 + 33, 1), 0xff);
    assert_eq!(read(&gic, GICD + 0x400 + 32, 2), 0xffa0);
    write(&mut gic, 0, GICD + 0x6000 + 8 * 40, 8, 0xff_ffff_ffff);
    assert_eq!(read(&gic, GICD + 0x6000 + 8 * 40, 8), 0xff_80ff_ffff);
    write(&mut gic, 0, GICD + 0x6000 + 8 * 40, 4, 1);
    assert_eq!(read(&gic, GICD + 0x6000 + 8 * 40, 8), 0xff_0000_0001);
    write(&mut gic, 0, GICD + 0xc08, 4, 0b1000);
    assert_eq!(read(&gic, GICD + 0xc08, 4), 0b1000);
    assert_eq!(
        read(&gic, GICR + 0x1_0c00, 4),
        0xaaaa_aaaa,
        "SGIs are edges"
    );
    write(&mut gic, 0, GICR + 0x1_0c04, 4, u64::MAX);
    assert_eq!(read(&gic, GICR + 0x1_0c04, 4), 0, "PPIs are levels");
}

#[test]
fn every_offset_and_width_is_answered() {
    let mut gic = ready();
    for width in [1, 2, 4, 8] {
        for offset in (0..0x1_0000).step_by(usize::from(width)) {
            read(&gic, GICD + offset, width);
            write(&mut gic, 0, GICD + offset, width, u64::MAX);
        }
        for offset in (0..0x4_0000).step_by(usize::from(width)) {
            read(&gic, GICR + offset, width);
            write(&mut gic, 1, GICR + offset, width, u64::MAX);
        }
    }
    // Odd offsets too: a guest may say anything.
    for offset in 0..0x100 {
        read(&gic, GICD + 0x5ff0 + offset, 8);
        write(&mut gic, 0, GICD + 0xff00 + offset, 8, u64::MAX);
    }
}

#[test]
fn a_level_comes_again_while_its_line_is_high() {
    let mut gic = ready();
    let mut lists = ListRegisters::default();
    assert_eq!(gic.set_line(33, true), Ok(Some(0)));
    gic.fill(0, &mut lists, 4);
    assert_eq!(lists.states(), [(33, 1)]);
    assert_eq!(lists.acknowledge(), Some(33));
    gic.drain(0, &mut lists);
    gic.fill(0, &mut lists, 4);
    assert_eq!(lists.states(), [(33, 3)], "active, and pending again");
    gic.drain(0, &mut lists);
    assert_eq!(gic.set_line(33, false), Ok(Some(0)));
    gic.fill(0, &mut lists, 4);
    assert_eq!(lists.states(), [(33, 2)]);
    lists.end(33);
    gic.drain(0, &mut lists);
    gic.fill(0, &mut lists, 4);
    assert_eq!(lists.states(), []);
    assert!(!gic.has_deliverable(0));
}

#[test]
fn an_interrupt_goes_to_one_vcpu() {
    let mut gic = ready();
    let (mut first, mut second) = (ListRegisters::default(), ListRegisters::default());
    gic.set_line(40, true).unwrap();
    gic.fill(0, &mut first, 4);
    assert_eq!(
        write(&mut gic, 0, GICD + 0x6000 + 8 * 40, 8, 1),
        0,
        "held by 0"
    );
    gic.fill(1, &mut second, 4);
    assert_eq!((first.states().len(), second.states().len()), (1, 0));
    gic.drain(0, &mut first);
    gic.fill(0, &mut first, 4);
    gic.fill(1, &mut second, 4);
    assert_eq!((first.states().len(), second.states().len()), (0, 1));
    // Active on 1 it stays there, wherever it is routed.
    second.acknowledge();
    gic.drain(1, &mut second);
    write(&mut gic, 0, GICD + 0x6000 + 8 * 40, 8, 0);
    gic.fill(0, &mut first, 4);
    gic.fill(1, &mut second, 4);
    assert_eq!((first.states().len(), second.states().len()), (0, 1));
}

#[test]
fn software_interrupts_reach_their_targets() {
    let mut gic = ready();
    assert_eq!(gic.send_sgi(0, 5 << 24 | 0b10), 0b10);
    assert_eq!(gic.send_sgi(0, 1 << 40 | 3 << 24), 0b10);
    assert_eq!(gic.send_sgi(0, 1 << 16 | 0b11), 0, "another cluster");
    assert_eq!(gic.send_sgi(0, 1 << 44 | 0b11), 0, "another range");
    assert_eq!(gic.send_sgi(0, 0xffff), 0b11);
    let mut lists = ListRegisters::default();
    gic.fill(1, &mut lists, 4);
    assert_eq!(lists.states(), [(0, 1), (3, 1), (5, 1)]);
}

#[test]
fn the_timer_is_bound_to_the_hardware() {
    let mut gic = ready();
    let mut lists = ListRegisters::default();
    gic.set_timer(0, true);
    gic.fill(0, &mut lists, 4);
    assert_eq!(lists.values[0] & 0xffff_ffff, 27);
    assert_eq!(lists.values[0] >> 32 & 0x1fff, 27);
    assert_eq!(lists.values[0] >> 61 & 1, 1);
    assert!(lists.timer_held);
    lists.acknowledge();
    gic.drain(0, &mut lists);
    gic.fill(0, &mut lists, 4);
    assert_eq!(lists.states(), [(27, 2)], "never active and pending");
    assert!(lists.timer_held);
    lists.end(27);
    gic.drain(0, &mut lists);
    gic.fill(0, &mut lists, 4);
    assert_eq!(lists.states(), []);
    assert!(!lists.timer_held);
}

#[test]
fn more_interrupts_than_list_registers_all_arrive() {
    let mut gic = ready();
    let mut lists = ListRegisters::default();
    for intid in 32..64 {
        write(
            &mut gic,
            0,
            GICD + 0x400 + u64::from(intid),
            1,
            u64::from(0xf8 - 3 * intid),
        );
        gic.set_line(intid, true).unwrap();
    }
    let mut taken = Vec::new();
    for _ in 0..32 {
        gic.fill(0, &mut lists, 4);
        assert_eq!(lists.control & 2 != 0, taken.len() < 28, "asks for more");
        let intid = lists.acknowledge().unwrap();
        taken.push(intid);
        gic.drain(0, &mut lists);
        gic.set_line(intid, false).unwrap();
        gic.fill(0, &mut lists, 4);
        lists.end(intid);
        gic.drain(0, &mut lists);
    }
    assert_eq!(taken, (32..64).rev().collect::<Vec<_>>(), "by priority");
    assert!(!gic.has_deliverable(0));
}

#[test]
fn an_end_without_a_list_register_is_counted() {
    let mut gic = ready();
    let mut lists = ListRegisters::default();
    write(&mut gic, 0, GICD + 0x304, 4, 0b111);
    gic.fill(0, &mut lists, 2);
    assert_eq!(lists.states(), [(32, 2), (33, 2)]);
    lists.control |= 1 << 27;
    gic.drain(0, &mut lists);
    assert_eq!(read(&gic, GICD + 0x304, 4), 0b110);
}

/// Random edges, entries, exits, acknowledgements and ends: every edge is seen, none twice.
#[test]
fn no_edge_is_lost_or_doubled() {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    for _ in 0..200 {
        let mut gic = ready();
        write(&mut gic, 0, GICD + 0xc08, 4, 0xaaaa_aaaa);
        let mut lists = ListRegisters::default();
        let room = usize::try_from(1 + random(4)).unwrap();
        let (mut raised, mut seen, mut unseen) = ([0_u32; 8], [0_u32; 8], [false; 8]);
        let mut active: Vec<u32> = Vec::new();
        for step in 0..400 {
            let last = step >= 300;
            match if last { 2 + random(4) } else { random(6) } {
                0 | 1 => {
                    let n = usize::try_from(random(8)).unwrap();
                    raised[n] += 1;
                    unseen[n] = true;
                    let intid = 32 + u32::try_from(n).unwrap();
                    gic.set_line(intid, true).unwrap();
                    gic.set_line(intid, false).unwrap();
                }
                2 | 3 => {
                    gic.drain(0, &mut lists);
                    gic.fill(0, &mut lists, room);
                }
                4 if active.is_empty() => {
                    if let Some(intid) = lists.acknowledge() {
                        let n = usize::try_from(intid - 32).unwrap();
                        seen[n] += 1;
                        unseen[n] = false;
                        active.push(intid);
                    }
                }
                _ => {
                    if let Some(intid) = active.pop() {
                        lists.end(intid);
                    }
                }
            }
        }
        assert_eq!(unseen, [false; 8], "lost");
        assert!(
            seen.iter()
                .zip(raised)
                .all(|(seen, raised)| *seen <= raised),
            "doubled"
        );
        assert!(MAX_LISTS >= room);
    }
}
