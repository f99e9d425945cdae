//! No circle between files of different folders, in any crate: what a file uses lies beside it, or on a way that leads on.
//!
//! Uses are read from the sources: imports and paths that begin with `crate`, `super` or `self`. A name that a module only
//! passes on counts as that module's own, so a circle through such a name alone is not seen. Never: test code, which may look at
//! everything.
#![allow(clippy::disallowed_methods, reason = "a test reads files")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use gracchus_tests::places::{SHIPPED, rust_files, workspace};
use syn::{
    Attribute, Item, ItemUse, UseTree,
    visit::{self, Visit},
};

/// `a::b::c`; the crate's root is empty.
type Module = Vec<String>;

/// Beside the shipped code.
const OTHERS: [&str; 4] = ["sim/checker/src", "sim/workload/src", "sim/src", "tests/src"];

#[derive(Default)]
struct Uses(Vec<Vec<String>>);

impl Uses {
    fn tree(&mut self, before: &[String], tree: &UseTree) {
        let mut path = before.to_vec();
        match tree {
            UseTree::Path(it) => {
                path.push(it.ident.to_string());
                self.tree(&path, &it.tree);
            }
            UseTree::Name(it) => {
                path.push(it.ident.to_string());
                self.0.push(path);
            }
            UseTree::Rename(it) => {
                path.push(it.ident.to_string());
                self.0.push(path);
            }
            UseTree::Glob(_) => self.0.push(path),
            UseTree::Group(it) => it.items.iter().for_each(|tree| self.tree(before, tree)),
        }
    }
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Path>().is_ok_and(|condition| condition.is_ident("test"))
    })
}

impl<'a> Visit<'a> for Uses {
    fn visit_item(&mut self, item: &'a Item) {
        let attributes = match item {
            Item::Mod(it) => &it.attrs,
            Item::Use(it) => &it.attrs,
            Item::Fn(it) => &it.attrs,
            Item::Impl(it) => &it.attrs,
            _ => return visit::visit_item(self, item),
        };
        if !is_for_tests(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, import: &'a ItemUse) {
        self.tree(&[], &import.tree);
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        self.0.push(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }
}

fn module_of(root: &Path, file: &Path) -> Module {
    let path = file.strip_prefix(root).expect("inside").with_extension("");
    let mut module: Module = path.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if module.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
        module.pop();
    }
    module
}

/// Which modules of the crate each of its modules uses.
fn graph(root: &Path) -> BTreeMap<Module, BTreeSet<Module>> {
    let mut files = Vec::new();
    rust_files(root, &mut files);
    let is_test = |module: &Module| module.iter().any(|part| part == "tests" || part == "pairs");
    let sources: Vec<(Module, syn::File)> = files
        .iter()
        .map(|file| (module_of(root, file), file))
        .filter(|(module, _)| !is_test(module))
        .map(|(module, file)| {
            let text = fs::read_to_string(file).expect("a source file");
            (module, syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display())))
        })
        .collect();
    let modules: BTreeSet<Module> = sources.iter().map(|(module, _)| module.clone()).collect();
    let mut graph: BTreeMap<Module, BTreeSet<Module>> = BTreeMap::new();
    for (module, source) in &sources {
        let mut uses = Uses::default();
        uses.visit_file(source);
        let used = uses.0.iter().filter_map(|path| resolve(module, path, &modules));
        graph.entry(module.clone()).or_default().extend(used.filter(|used| used != module));
    }
    graph
}

/// The module that `path`, as `module` writes it, leads to.
fn resolve(module: &Module, path: &[String], modules: &BTreeSet<Module>) -> Option<Module> {
    let first = path.first()?.as_str();
    let mut at = if first == "crate" { Vec::new() } else { module.clone() };
    let mut rest = path;
    while let Some(("crate" | "self" | "super", behind)) =
        rest.split_first().map(|(one, rest)| (one.as_str(), rest))
    {
        if rest[0] == "super" {
            at.pop()?;
        }
        rest = behind;
    }
    if rest.len() == path.len() {
        return None;
    }
    let whole: Module = at.into_iter().chain(rest.iter().cloned()).collect();
    (0..=whole.len()).rev().map(|length| whole[..length].to_vec()).find(|known| modules.contains(known))
}

/// Everything that is reached from `from`.
fn reached(graph: &BTreeMap<Module, BTreeSet<Module>>, from: &Module) -> BTreeSet<Module> {
    let (mut found, mut left) = (BTreeSet::new(), vec![from]);
    while let Some(module) = left.pop() {
        for next in graph.get(module).into_iter().flatten() {
            if found.insert(next.clone()) {
                left.push(next);
            }
        }
    }
    found
}

/// The folder that a module's file is in; one that has a folder of its own stands for what is in it.
fn folder<'m>(graph: &BTreeMap<Module, BTreeSet<Module>>, module: &'m Module) -> &'m [String] {
    let has_own = graph.keys().any(|other| other.len() > module.len() && other.starts_with(module));
    if has_own { module } else { &module[..module.len().saturating_sub(1)] }
}

#[test]
fn no_circle_joins_files_of_different_folders() {
    let mut broken = Vec::new();
    for root in SHIPPED.into_iter().chain(OTHERS) {
        let graph = graph(&workspace().join(root));
        let edges: usize = graph.values().map(BTreeSet::len).sum();
        assert!(graph.len() < 5 || edges > graph.len() / 2, "{root}: uses are found ({edges})");
        let reach: BTreeMap<&Module, BTreeSet<Module>> =
            graph.keys().map(|module| (module, reached(&graph, module))).collect();
        for (module, found) in &reach {
            for other in found.iter().filter(|other| *other > *module && reach[other].contains(*module)) {
                let (one, two) = (folder(&graph, module), folder(&graph, other));
                // A folder within the other is a part of it.
                if !one.starts_with(two) && !two.starts_with(one) {
                    broken.push(format!("{root}: {} and {}", module.join("::"), other.join("::")));
                }
            }
        }
    }
    assert!(broken.is_empty(), "files of different folders use each other:\n{}", broken.join("\n"));
}

#[test]
fn a_circle_would_be_seen() {
    let module = |path: &str| -> Module { path.split("::").map(str::to_owned).collect() };
    let modules = BTreeSet::from([vec![], module("a"), module("a::b"), module("c"), module("c::d")]);
    let leads = |from: &str, path: &str| resolve(&module(from), &module(path), &modules);
    assert_eq!(leads("a::b", "super::super::c::d::Name"), Some(module("c::d")));
    assert_eq!(leads("a::b", "crate::c::Name"), Some(module("c")));
    assert_eq!(leads("a::b", "super::Name"), Some(module("a")));
    assert_eq!(leads("a::b", "std::fs"), None);
    let graph = BTreeMap::from([
        (module("a::b"), BTreeSet::from([module("c::d")])),
        (module("c::d"), BTreeSet::from([module("a::b")])),
    ]);
    assert!(reached(&graph, &module("a::b")).contains(&module("a::b")));
}
