//! Every state of a small machine, breadth first, over the real transition code.
//!
//! A state is kept as the way to it, and is made again when its turn comes; worlds of the same [`Key`] are one state. In each,
//! everything is tried that [`World::actions`] lists, and judged; what is refused must have changed nothing; and there is a way
//! home from it, to the state in which all began.

use std::collections::HashSet;

use pinfold_core::mutant::Mutant;
use pinfold_spec::Violation;

use crate::lockstep::Judged;
use crate::small::{Action, Key, World};
use crate::{alone, judged};

/// How much there was to try.
#[derive(Debug, Default)]
struct Figures {
    states: usize,
    transitions: u64,
    refused: u64,
    depth: usize,
}

/// The shortest way to a violation.
#[derive(Debug)]
struct Found {
    way: Vec<Action>,
    violation: Violation,
}

/// A state: the one before it, the step from there, and how many there were.
struct Node {
    parent: usize,
    action: Option<Action>,
    depth: usize,
}

struct Search {
    first: World,
    home: Key,
    nodes: Vec<Node>,
    seen: HashSet<Key>,
    figures: Figures,
}

impl Search {
    fn new(pages: u64, mixed: bool) -> Judged<Self> {
        let first = World::new(pages, mixed)?;
        let home = first.key();
        let start = Node {
            parent: 0,
            action: None,
            depth: 0,
        };
        Ok(Self {
            first,
            nodes: vec![start],
            seen: HashSet::from([home.clone()]),
            home,
            figures: Figures::default(),
        })
    }

    fn way(&self, index: usize) -> Vec<Action> {
        let mut way = Vec::new();
        let mut node = &self.nodes[index];
        while let Some(action) = node.action {
            way.push(action);
            node = &self.nodes[node.parent];
        }
        way.reverse();
        way
    }

    /// The world at a node. The way was judged when it was found.
    fn world(&self, index: usize) -> Judged<World> {
        let mut world = self.first.clone();
        world.both.compares = false;
        for action in self.way(index) {
            world.take(action)?;
        }
        Ok(world)
    }

    /// Tries everything at a node.
    fn visit(&mut self, index: usize) -> Result<(), (Option<Action>, Violation)> {
        let world = judged(|| self.world(index)).map_err(|violation| (None, violation))?;
        let (glance, depth) = (world.glance(), self.nodes[index].depth);
        let mut trial = world.clone();
        for action in world.actions() {
            self.figures.transitions += 1;
            let tried = judged(|| try_one(&mut trial, action));
            if tried.map_err(|violation| (Some(action), violation))? {
                self.figures.refused += 1;
                if trial.glance() != glance {
                    let what = "a refusal changed something".to_owned();
                    let violation =
                        Violation::new(pinfold_spec::Clause::RefusalChangesNothing, what);
                    return Err((Some(action), violation));
                }
                continue;
            }
            if World::leads_on(action) {
                let key = trial.key();
                if !self.seen.contains(&key) {
                    self.seen.insert(key);
                    self.nodes.push(Node {
                        parent: index,
                        action: Some(action),
                        depth: depth + 1,
                    });
                    self.figures.depth = self.figures.depth.max(depth + 1);
                }
            }
            trial = world.clone();
        }
        judged(|| self.come_home(world)).map_err(|violation| (None, violation))
    }

    /// Everything can be ended from here, and nothing is lost or left.
    fn come_home(&self, mut world: World) -> Judged {
        world.go_home()?;
        world.both.compares = true;
        world.both.compare()?;
        if world.key() == self.home {
            Ok(())
        } else {
            let what = "something is left after the end of all VMs".to_owned();
            Err(Violation::new(
                pinfold_spec::Clause::NothingElseChanges,
                what,
            ))
        }
    }

    fn run(mut self) -> Result<Figures, Found> {
        let mut index = 0;
        while index < self.nodes.len() {
            if let Err((action, violation)) = self.visit(index) {
                let mut way = self.way(index);
                way.extend(action);
                return Err(Found { way, violation });
            }
            index += 1;
        }
        self.figures.states = self.nodes.len();
        Ok(self.figures)
    }
}

/// Takes a step and judges all that came of it; says whether it came to nothing. What that left alone is for the caller to see.
fn try_one(trial: &mut World, action: Action) -> Judged<bool> {
    let refused = trial.take(action)?;
    if !refused && World::leads_on(action) {
        trial.both.compares = true;
        trial.both.compare()?;
        trial.both.compares = false;
    }
    Ok(refused)
}

fn search(pages: u64, mixed: bool) -> Result<Figures, Found> {
    let first = judged(|| Search::new(pages, mixed)).map_err(|violation| Found {
        way: Vec::new(),
        violation,
    })?;
    first.run()
}

fn explore(pages: u64, mixed: bool, least: usize) {
    let start = std::time::Instant::now();
    let figures = alone(None, || search(pages, mixed)).unwrap_or_else(|found| panic!("{found:#?}"));
    let second = if mixed { "an ordinary" } else { "a protected" };
    println!(
        "{pages} pages, a protected and {second} guest, 2 addresses: {figures:?}, {:.1?}",
        start.elapsed()
    );
    assert!(
        figures.states >= least && figures.depth >= 10,
        "that is not everything: {figures:?}"
    );
}

#[test]
fn every_state_of_two_pages() {
    explore(2, false, 2000);
}

#[test]
fn every_state_of_two_pages_and_an_ordinary_guest() {
    explore(2, true, 2000);
}

#[test]
#[ignore = "takes minutes: make long"]
fn every_state_of_four_pages() {
    explore(4, false, 45_000);
}

#[test]
#[ignore = "takes minutes: make long"]
fn every_state_of_four_pages_and_an_ordinary_guest() {
    explore(4, true, 45_000);
}

/// Ways to break core, whether an ordinary VM is needed to see it, and in how many steps that can be seen.
const MUTANTS: &[(Mutant, bool, usize)] = &[
    (Mutant::SkipsPinCheck, false, 2),
    (Mutant::DonatesAnything, false, 3),
    (Mutant::DonatesOver, false, 3),
    (Mutant::ForgetsOrder, false, 2),
    (Mutant::ReclaimsFromLiving, false, 3),
    (Mutant::SkipsWipe, false, 4),
    (Mutant::OwnedStays, false, 4),
    (Mutant::TeardownWhileLoaded, false, 4),
    (Mutant::ShareUnnoted, false, 5),
    (Mutant::HostStays, false, 7),
    (Mutant::UnshareUnnoted, false, 7),
    (Mutant::SkipsFlush, false, 2),
    (Mutant::LeaksTables, false, 6),
    (Mutant::PoisonsAnything, false, 2),
    (Mutant::SharesAnybodys, true, 4),
    (Mutant::ShareUncounted, true, 3),
    (Mutant::UnshareUncounted, true, 4),
    (Mutant::SharesOver, true, 4),
];

#[test]
fn broken_cores_are_found_by_the_shortest_way() {
    for (mutant, mixed, most) in MUTANTS {
        let Err(Found { way, violation }) = alone(Some(*mutant), || search(2, *mixed)) else {
            panic!("{mutant:?} is not found");
        };
        println!("{mutant:?}: {violation:?} after {way:?}");
        assert!(way.len() <= *most, "{mutant:?} takes {} steps", way.len());
    }
}
