//! Gives the linker its script: `linker/hyp.ld` is how the image is laid out.

use std::path::Path;

fn main() {
    println!("cargo:rerun-if-changed=../../linker/hyp.ld");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return;
    }
    let manifest = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let script = Path::new(&manifest).join("../../linker/hyp.ld");
    println!("cargo:rustc-link-arg-bins=-T{}", script.display());
    for argument in [
        "-pie",
        "--no-dynamic-linker",
        "-znotext",
        "-zmax-page-size=4096",
        "--gc-sections",
        "--build-id=none",
    ] {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
}
