//! Gives the linker its script: `linker/hyp.ld` is how the image is laid out.

fn main() {
    println!("cargo:rerun-if-changed=../../linker/hyp.ld");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return;
    }
    // Cargo links in the workspace's folder. What it remembers of this program is shared by all clones: no path of one of them.
    println!("cargo:rustc-link-arg-bins=-Tlinker/hyp.ld");
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
