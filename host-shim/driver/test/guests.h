/* SPDX-License-Identifier: GPL-2.0 */
/* The guests of guests.S, each with its end. */
#ifndef GUESTS_H
#define GUESTS_H

extern const char guest_large[], guest_large_end[];
extern const char guest_mmio[], guest_mmio_end[];
extern const char guest_wfi[], guest_wfi_end[];
extern const char guest_spin[], guest_spin_end[];
extern const char guest_doorbell[], guest_doorbell_end[];
extern const char guest_irq[], guest_irq_end[];
extern const char guest_race[], guest_race_end[];
extern const char guest_share[], guest_share_end[];
extern const char guest_keeper[], guest_keeper_end[];

#endif /* GUESTS_H */
