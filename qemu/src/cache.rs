//! Costly products, kept outside the clone under the hash of their inputs.
//!
//! [`Cache::product`] is the only way in: it builds into a temporary directory under a lock and
//! renames the result into place, so what stands under a key is always whole, and two runs that
//! want the same product build it once.

use anyhow::{Context, Result, anyhow};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// How many products of one kind stay; the least recently used go first.
const KEPT_PER_KIND: usize = 4;

/// The directory of costly products.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    root: PathBuf,
}

/// The inputs of a product, as a running hash.
#[derive(Clone)]
pub(crate) struct Key(Sha256);

impl Key {
    /// A key without inputs.
    pub(crate) fn new() -> Self {
        Self(Sha256::new())
    }

    /// Adds a text under a label.
    pub(crate) fn text(mut self, label: &str, text: &str) -> Self {
        self.add(label, text.as_bytes());
        self
    }

    /// Adds the contents of a file; its place does not count.
    pub(crate) fn file(mut self, path: &Path) -> Result<Self> {
        let contents = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        self.add(&name, &contents);
        Ok(self)
    }

    /// Adds every file of a directory tree, by name and contents.
    pub(crate) fn tree(mut self, directory: &Path) -> Result<Self> {
        for path in files_below(directory)? {
            let name = path.strip_prefix(directory)?.to_string_lossy().into_owned();
            let contents =
                fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            self.add(&name, &contents);
        }
        Ok(self)
    }

    /// The hash as a short directory name.
    pub(crate) fn name(self) -> String {
        let hash = self.0.finalize();
        let half = hash.first_chunk().copied().unwrap_or_default();
        format!("{:016x}", u64::from_be_bytes(half))
    }

    fn add(&mut self, label: &str, contents: &[u8]) {
        for part in [label.as_bytes(), contents] {
            self.0.update(part.len().to_le_bytes());
            self.0.update(part);
        }
    }
}

/// Every file below a directory, sorted; nothing if there is no such directory.
pub(crate) fn files_below(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut open = vec![directory.to_path_buf()];
    while let Some(directory) = open.pop() {
        let Ok(entries) = fs::read_dir(&directory) else {
            continue;
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                open.push(entry.path());
            } else {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    Ok(files)
}

impl Cache {
    /// `$PINFOLD_CACHE`, or `pinfold` in the user's cache directory.
    pub(crate) fn open() -> Result<Self> {
        let named = std::env::var_os("PINFOLD_CACHE").map(PathBuf::from);
        let xdg =
            || std::env::var_os("XDG_CACHE_HOME").map(|home| PathBuf::from(home).join("pinfold"));
        let home =
            || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/pinfold"));
        let root = named
            .or_else(xdg)
            .or_else(home)
            .context("neither PINFOLD_CACHE nor HOME is set")?;
        Self::at(root)
    }

    /// A cache in a directory of one's choice.
    pub(crate) fn at(root: PathBuf) -> Result<Self> {
        fs::create_dir_all(root.join("locks"))
            .with_context(|| format!("cannot make {}", root.display()))?;
        fs::create_dir_all(root.join("logs"))?;
        Ok(Self { root })
    }

    /// A path that does not depend on inputs, such as the target directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The product of a kind and key; `build` makes it in the directory that it is given.
    pub(crate) fn product(
        &self,
        kind: &str,
        key: Key,
        build: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let _lock = self.lock(kind)?;
        let place = self.root.join(format!("{kind}-{}", key.name()));
        if place.is_dir() {
            File::open(&place)?.set_modified(SystemTime::now())?;
            return Ok(place);
        }
        // The lock is ours: what a broken run of this kind left is nobody's.
        let unfinished = self.root.join(format!("unfinished-{kind}"));
        remove(&unfinished)?;
        fs::create_dir_all(&unfinished)?;
        if let Err(error) = build(&unfinished) {
            // Nobody shall take a half for a whole; what was said about it is in the logs.
            remove(&unfinished)?;
            return Err(error);
        }
        fs::rename(&unfinished, &place)?;
        self.forget_old(kind)?;
        Ok(place)
    }

    /// Holds others of the same name off until the file is dropped.
    pub(crate) fn lock(&self, name: &str) -> Result<File> {
        let path = self.root.join("locks").join(name);
        let file =
            File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
        if file.try_lock().is_err() {
            println!("waiting: another run is making the {name}");
            file.lock()?;
        }
        Ok(file)
    }

    fn forget_old(&self, kind: &str) -> Result<()> {
        let prefix = format!("{kind}-");
        let mut products = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_key =
                |rest: &str| rest.len() == 16 && rest.chars().all(|c| c.is_ascii_hexdigit());
            if name.strip_prefix(&prefix).is_some_and(is_key) {
                products.push((entry.metadata()?.modified()?, entry.path()));
            }
        }
        products.sort();
        let surplus = products.len().saturating_sub(KEPT_PER_KIND);
        products
            .iter()
            .take(surplus)
            .try_for_each(|(_, path)| remove(path))
    }
}

fn remove(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(anyhow!(error).context(format!("cannot remove {}", directory.display())))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        Key::new().text("input", text)
    }

    #[test]
    fn a_product_is_built_once_for_each_key() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::at(directory.path().to_path_buf()).unwrap();
        let mut built = 0;
        for input in ["a", "a", "b"] {
            let place = cache
                .product("thing", key(input), |place| {
                    built += 1;
                    Ok(fs::write(place.join("file"), input)?)
                })
                .unwrap();
            assert_eq!(fs::read_to_string(place.join("file")).unwrap(), input);
        }
        assert_eq!(built, 2);
    }

    #[test]
    fn a_failed_build_leaves_nothing_under_its_key() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::at(directory.path().to_path_buf()).unwrap();
        let failed = cache.product("thing", key("a"), |place| {
            fs::write(place.join("half"), "")?;
            Err(anyhow!("broken"))
        });
        assert!(failed.is_err());
        assert!(!directory.path().join("unfinished-thing").exists());
        let place = cache.product("thing", key("a"), |_| Ok(())).unwrap();
        assert!(!place.join("half").exists());
    }

    #[test]
    fn old_products_go() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::at(directory.path().to_path_buf()).unwrap();
        for input in 0..KEPT_PER_KIND + 3 {
            let _place = cache
                .product("thing", key(&input.to_string()), |_| Ok(()))
                .unwrap();
        }
        let left = fs::read_dir(directory.path())
            .unwrap()
            .filter(|entry| {
                entry
                    .as_ref()
                    .unwrap()
                    .file_name()
                    .to_string_lossy()
                    .starts_with("thing-")
            })
            .count();
        assert_eq!(left, KEPT_PER_KIND);
    }

    #[test]
    fn keys_tell_labels_from_contents() {
        assert_ne!(
            Key::new().text("ab", "c").name(),
            Key::new().text("a", "bc").name()
        );
    }
}
