//! Pinfold's program for the host: runs protected VMs and looks at the hypervisor.
//!
//! The library holds everything that can be tested on the developer's machine; only
//! `machine` (the VM behind `/dev/kvm`) needs arm64. Entry point: [`cli::main`].

pub mod cli;
pub mod console;
pub mod control;
pub mod demo;
pub mod device_tree;
pub mod devices;
pub mod ending;
pub mod fault_guard;
pub mod hvc;
pub mod image;
pub mod inspect;
pub mod json;
pub mod layout;
pub mod logger;
#[cfg(target_arch = "aarch64")]
pub mod machine;
pub mod memory;
mod output;
mod own_pages;
pub mod pages;
pub mod run;
pub mod scenario;
pub mod touch;
pub mod trace;
mod words;
