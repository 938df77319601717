//! The guest's console: a 16550 ([`Uart`]) around `vm-superio`'s model.
//!
//! Input waits in a queue of its own while the model's 64-byte FIFO is full and moves up as the
//! guest reads, so nothing that was typed (or piped in) is lost.

use std::collections::VecDeque;
use std::fmt;
use std::io::Write;

use vm_superio::Serial;
use vm_superio::serial::NoEvents;

use super::{InterruptLine, MmioDevice};

/// The UART.
pub struct Uart {
    model: Serial<InterruptLine, NoEvents, Box<dyn Write + Send>>,
    waiting: VecDeque<u8>,
}

impl fmt::Debug for Uart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uart")
            .field("waiting", &self.waiting.len())
            .finish_non_exhaustive()
    }
}

impl Uart {
    /// A UART that sends to `output` and interrupts through `line`.
    #[must_use]
    pub fn new(line: InterruptLine, output: Box<dyn Write + Send>) -> Self {
        Self {
            model: Serial::new(line, output),
            waiting: VecDeque::new(),
        }
    }

    /// Lets the guest receive `bytes`, after all that was given before.
    pub fn receive(&mut self, bytes: &[u8]) {
        self.waiting.extend(bytes);
        self.move_up();
    }

    fn move_up(&mut self) {
        while self.model.fifo_capacity() > 0 {
            let Some(byte) = self.waiting.pop_front() else {
                return;
            };
            if let Err(error) = self.model.enqueue_raw_bytes(&[byte]) {
                // Loopback mode refuses input; a real UART drops it as well.
                log::debug!("UART drops input: {error:?}");
            }
        }
    }
}

impl MmioDevice for Uart {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let (Ok(offset), [first, ..]) = (u8::try_from(offset), data) else {
            return;
        };
        *first = self.model.read(offset);
        self.move_up();
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let (Ok(offset), [first, ..]) = (u8::try_from(offset), data) else {
            return;
        };
        if let Err(error) = self.model.write(offset, *first) {
            log::debug!("console output: {error:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(buffer)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn read(uart: &mut Uart, offset: u64) -> u8 {
        let mut data = [0];
        uart.read(offset, &mut data);
        data[0]
    }

    #[test]
    fn output_goes_out_at_once() {
        let output = Shared::default();
        let mut uart = Uart::new(InterruptLine::new().unwrap(), Box::new(output.clone()));
        for byte in b"hello" {
            uart.write(0, &[*byte]);
        }
        assert_eq!(*output.0.lock().unwrap(), b"hello");
    }

    #[test]
    fn more_input_than_the_fifo_holds_arrives_whole_and_in_order() {
        let line = InterruptLine::new().unwrap();
        let mut uart = Uart::new(line.try_clone().unwrap(), Box::new(std::io::sink()));
        uart.write(1, &[1]);
        let input: Vec<u8> = (0..200).collect();
        uart.receive(&input);
        assert!(line.event().read().is_ok(), "received data interrupts");
        let mut got = Vec::new();
        while read(&mut uart, 5) & 1 != 0 {
            got.push(read(&mut uart, 0));
        }
        assert_eq!(got, input);
    }
}
