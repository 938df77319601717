//! Pinfold's core: everything that decides, and no instruction.
//!
//! [`hypervisor::Hypervisor`] is the one object that `hyp/el2` calls. It owns [`memory::Memory`] (the folio array, the host's
//! stage 2, the pin table, the pool), the table of VMs ([`vm`]), and asks the hardware through [`machine::Machine`].
//!
//! Invariant: the folio array says who owns a frame ([`folio`] has the states page); tables are its shadow. A change is
//! checked whole, then done whole. Nothing reachable from a host or a guest panics.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

#[cfg(any(test, feature = "test-machine"))]
extern crate std;

#[macro_use]
pub mod mutant;

pub mod addr;
pub mod call;
pub mod exit;
pub mod folio;
pub mod hypervisor;
pub mod id_registers;
pub mod injection;
pub mod machine;
pub mod memory;
pub mod owned;
pub mod pin_word;
pub mod psci;
pub mod redistributor;
pub mod refusal;
pub mod run;
pub mod stage2;
pub mod sysreg;
pub mod timer;
pub mod trace;
pub mod vcpu;
pub mod vcpus;
pub mod vgic;
pub mod vm;
