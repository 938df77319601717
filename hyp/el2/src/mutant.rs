//! Breaks core on purpose, as EL2's own arguments say: `pinfold.mutant=<name>`. Only an image with the feature `mutants` can.

use pinfold_core::mutant::{self, Mutant};

use crate::device_tree::Tree;
use crate::platform;

/// Turns on the mutant that the arguments name.
pub(crate) fn select(tree: &Tree<'_>) {
    let mut words = platform::own_arguments(tree);
    let Some(name) = words.find_map(|word| word.strip_prefix("pinfold.mutant=")) else {
        return;
    };
    match Mutant::named(name) {
        Some(mutant) => {
            mutant::select(Some(mutant));
            log::warn!("mutant {name}: EL2 is broken on purpose");
        }
        None => log::warn!("there is no mutant {name}"),
    }
}
