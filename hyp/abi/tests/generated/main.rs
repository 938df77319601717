//! The two files that are made from the table: fails when one is stale, writes them when `PINFOLD_BLESS` is set.
#![expect(clippy::expect_used, reason = "a test says what it found by panicking")]

mod header;
mod page;

use std::path::Path;

fn compare(path: &str, text: &str) {
    let path = Path::new("../..").join(path);
    if std::env::var_os("PINFOLD_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().expect("a file has a folder"))
            .expect("the folder can be made");
        std::fs::write(&path, text).expect("the file can be written");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == text,
        "{} is stale: run `PINFOLD_BLESS=1 cargo test -p pinfold-abi`",
        path.display()
    );
}

#[test]
fn header_is_fresh() {
    compare("host-shim/driver/pinfold_abi.h", &header::text());
}

#[test]
fn page_is_fresh() {
    compare("hyp/doc/book/src/abi.md", &page::text());
}
