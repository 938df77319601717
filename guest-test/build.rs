//! Links both images at address 0 as self-relocating executables, with one linker script.

fn main() {
    println!("cargo::rerun-if-changed=../linker/guest.ld");
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "none") {
        // Cargo links in the workspace's folder. What it remembers of this program is shared by all clones: no path of one of them.
        println!("cargo::rustc-link-arg-bins=--script=linker/guest.ld");
        for argument in [
            "-pie",
            "--no-dynamic-linker",
            "-znotext",
            "-zmax-page-size=4096",
            "--build-id=none",
        ] {
            println!("cargo::rustc-link-arg-bins={argument}");
        }
    }
}
