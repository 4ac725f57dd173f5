//! The layers of `src/lib.rs`: a module imports only from layers below its own, and no two files import each other, however
//! indirectly.
//!
//! The module tree and the paths are read by `syn`. Code under `#[cfg(test)]` may import anything.

use proc_macro2::{TokenStream, TokenTree};
use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use syn::visit::Visit;
use syn::{Attribute, Item, UseTree, Visibility};

/// The layers, lowest first.
const LAYERS: &[&[&str]] = &[
    &["config", "wire", "metrics", "rpc"],
    &["telemetry", "drain"],
    &["transport"],
    &["hub"],
    &["chat", "admin", "health", "http", "client"],
    &["server"],
    &["cli"],
    &["cmd"],
];

type ModuleId = usize;
/// Names from the crate's root on.
type Names = Vec<String>;

/// A module, in a file of its own or inside one.
#[derive(Default)]
struct Module {
    file: PathBuf,
    path: Names,
    children: HashMap<String, ModuleId>,
    /// What `use` brings into the module, by its name there.
    imports: HashMap<String, Names>,
    globs: Vec<Names>,
    /// Paths that its code names.
    named: BTreeSet<Names>,
}

/// The crate's modules; the first is the root.
struct Tree(Vec<Module>);

impl Tree {
    fn of(root: &Path) -> Self {
        let mut tree = Self(Vec::new());
        let code = fs::read_to_string(root).unwrap();
        tree.add(root, root.parent().unwrap(), &Vec::new(), syn::parse_file(&code).unwrap().items);
        tree
    }

    /// Adds a module and those below it, whose files are in `folder`.
    fn add(&mut self, file: &Path, folder: &Path, path: &Names, items: Vec<Item>) -> ModuleId {
        let id = self.0.len();
        self.0.push(Module { file: file.to_owned(), path: path.clone(), ..Module::default() });
        for item in items {
            match item {
                Item::Mod(module) if is_test(&module.attrs) => {}
                Item::Mod(module) => {
                    let name = module.ident.to_string();
                    let mut child_path = path.clone();
                    child_path.push(name.clone());
                    let child_folder = folder.join(&name);
                    let child = if let Some((_, items)) = module.content {
                        self.add(file, &child_folder, &child_path, items)
                    } else {
                        let files = [folder.join(format!("{name}.rs")), child_folder.join("mod.rs")];
                        let child_file = files.iter().find(|file| file.exists()).unwrap();
                        let code = fs::read_to_string(child_file).unwrap();
                        let items = syn::parse_file(&code).unwrap().items;
                        self.add(child_file, &child_folder, &child_path, items)
                    };
                    self.0[id].children.insert(name, child);
                }
                Item::Use(import) if !is_test(&import.attrs) => {
                    // A re-export gives another file's item a name here, and is no dependency of this file's code.
                    let is_reexport = !matches!(import.vis, Visibility::Inherited);
                    self.import(id, Vec::new(), &import.tree, is_reexport);
                }
                item => {
                    let mut paths = Paths(&mut self.0[id].named);
                    paths.visit_item(&item);
                }
            }
        }
        id
    }

    fn import(&mut self, id: ModuleId, mut prefix: Names, tree: &UseTree, is_reexport: bool) {
        match tree {
            UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.import(id, prefix, &path.tree, is_reexport);
            }
            UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.import(id, prefix.clone(), tree, is_reexport));
            }
            UseTree::Glob(_) => self.0[id].globs.push(prefix),
            UseTree::Name(_) | UseTree::Rename(_) => {
                let (name, renamed) = match tree {
                    UseTree::Name(name) => (name.ident.to_string(), name.ident.to_string()),
                    UseTree::Rename(name) => (name.ident.to_string(), name.rename.to_string()),
                    _ => unreachable!("it is one of the two"),
                };
                let local = if name == "self" { prefix.last().unwrap().clone() } else { renamed };
                if name != "self" {
                    prefix.push(name);
                }
                if !is_reexport {
                    self.0[id].named.insert(prefix.clone());
                }
                self.0[id].imports.insert(local, prefix);
            }
        }
    }

    /// The module that defines what this path in a module names; `None` for what is not of this crate.
    fn resolve(&self, from: ModuleId, path: &[String], depth: usize) -> Option<ModuleId> {
        let (first, rest) = path.split_first()?;
        let start = match first.as_str() {
            "crate" | "chatroom" => 0,
            "self" => from,
            "super" => self.parent(from),
            name => {
                let module = &self.0[from];
                if let Some(&child) = module.children.get(name) {
                    return self.descend(child, rest, depth);
                }
                let import = module.imports.get(name).filter(|_| depth < 16)?;
                let whole: Names = import.iter().chain(rest).cloned().collect();
                return self.resolve(from, &whole, depth + 1);
            }
        };
        self.descend(start, rest, depth)
    }

    fn descend(&self, from: ModuleId, path: &[String], depth: usize) -> Option<ModuleId> {
        let Some((first, rest)) = path.split_first() else { return Some(from) };
        let module = &self.0[from];
        if first == "super" {
            return self.descend(self.parent(from), rest, depth);
        }
        if let Some(&child) = module.children.get(first) {
            return self.descend(child, rest, depth);
        }
        if module.imports.contains_key(first) {
            // What is re-exported from another crate has its home here.
            return self.resolve(from, path, depth).or(Some(from));
        }
        // An item of the module, or of one of its items.
        Some(from)
    }

    fn parent(&self, of: ModuleId) -> ModuleId {
        let path = &self.0[of].path;
        let parent = &path[..path.len().saturating_sub(1)];
        self.0.iter().position(|module| module.path == parent).unwrap()
    }

    /// Which module's code names which others, each time with the path.
    fn dependencies(&self) -> impl Iterator<Item = (&Module, &Module)> {
        let of = move |id: ModuleId| {
            let module = &self.0[id];
            let globs = module.globs.iter();
            let named = module.named.iter().chain(globs);
            named.filter_map(move |path| self.resolve(id, path, 0)).map(move |to| (module, &self.0[to]))
        };
        (0..self.0.len()).flat_map(of)
    }

    /// The files of each cycle of imports.
    fn cycles(&self) -> Vec<Vec<&Path>> {
        let mut files: HashMap<&Path, BTreeSet<&Path>> = HashMap::new();
        for (from, to) in self.dependencies() {
            if from.file != to.file {
                files.entry(&from.file).or_default().insert(&to.file);
            }
        }
        let reachable = |from: &Path| {
            let mut seen = BTreeSet::new();
            let mut open: Vec<&Path> = files.get(from).into_iter().flatten().copied().collect();
            while let Some(file) = open.pop() {
                if seen.insert(file) {
                    open.extend(files.get(file).into_iter().flatten());
                }
            }
            seen
        };
        let reach: HashMap<&Path, BTreeSet<&Path>> =
            files.keys().map(|file| (*file, reachable(file))).collect();
        let mut cycles: Vec<Vec<&Path>> = Vec::new();
        let mut all: Vec<_> = files.keys().copied().collect();
        all.sort_unstable();
        for file in all {
            let is_known = cycles.iter().any(|cycle| cycle.contains(&file));
            if !is_known && reach[file].contains(file) {
                let both_ways = |other: &&&Path| reach.get(**other).is_some_and(|back| back.contains(file));
                cycles.push(reach[file].iter().filter(both_ways).copied().collect());
            }
        }
        cycles
    }
}

/// Collects the paths of more than one name, also those within macros.
struct Paths<'a>(&'a mut BTreeSet<Names>);

impl<'ast> Visit<'ast> for Paths<'_> {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.len() > 1 {
            self.0.insert(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        }
        syn::visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, macro_: &'ast syn::Macro) {
        self.visit_tokens(macro_.tokens.clone());
        syn::visit::visit_macro(self, macro_);
    }

    fn visit_item(&mut self, item: &'ast Item) {
        let attributes = match item {
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            Item::Struct(item) => &item.attrs,
            _ => return syn::visit::visit_item(self, item),
        };
        if !is_test(attributes) {
            syn::visit::visit_item(self, item);
        }
    }
}

impl Paths<'_> {
    fn visit_tokens(&mut self, tokens: TokenStream) {
        let mut path = Names::new();
        let mut colons = 0;
        let mut end = |path: &mut Names| {
            let path = std::mem::take(path);
            if path.len() > 1 {
                self.0.insert(path);
            }
        };
        let mut groups = Vec::new();
        for token in tokens {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Ident(name) => {
                    if colons != 2 {
                        end(&mut path);
                    }
                    path.push(name.to_string());
                    colons = 0;
                }
                other => {
                    end(&mut path);
                    colons = 0;
                    if let TokenTree::Group(group) = other {
                        groups.push(group.stream());
                    }
                }
            }
        }
        end(&mut path);
        for group in groups {
            self.visit_tokens(group);
        }
    }
}

/// Whether `#[cfg(test)]` is on it, alone or with a feature.
fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute
                .meta
                .require_list()
                .is_ok_and(|list| list.tokens.clone().into_iter().any(|token| has_ident(token, "test")))
    })
}

fn has_ident(token: TokenTree, name: &str) -> bool {
    match token {
        TokenTree::Ident(ident) => ident == name,
        TokenTree::Group(group) => group.stream().into_iter().any(|token| has_ident(token, name)),
        _ => false,
    }
}

fn layer_of(module: &str) -> usize {
    let layer = LAYERS.iter().position(|layer| layer.contains(&module));
    layer.unwrap_or_else(|| panic!("{module} is in no layer: add it to the table"))
}

/// Each import that does not go downward.
fn upward(tree: &Tree) -> BTreeSet<String> {
    let top = |module: &Module| module.path.first().cloned();
    let wrong = |(from, to): (&Module, &Module)| {
        // The root only declares the modules.
        let (of, used) = (top(from)?, top(to)?);
        (of != used && layer_of(&of) <= layer_of(&used))
            .then(|| format!("{} imports {}", from.file.display(), to.path.join("::")))
    };
    tree.dependencies().filter_map(wrong).collect()
}

#[test]
fn imports_go_only_downward() {
    let wrong = upward(&Tree::of(Path::new("src/lib.rs")));
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn layer_table_names_every_module_and_no_other() {
    let tree = Tree::of(Path::new("src/lib.rs"));
    let modules: BTreeSet<&str> = tree.0[0].children.keys().map(String::as_str).collect();
    let table: BTreeSet<&str> = LAYERS.iter().copied().flatten().copied().collect();
    assert_eq!(modules, table);
}

#[test]
fn no_two_files_import_each_other() {
    let tree = Tree::of(Path::new("src/lib.rs"));
    let cycles = tree.cycles();
    assert!(cycles.is_empty(), "{cycles:#?}");
}

#[test]
fn hub_knows_no_grpc_no_http_and_no_flags() {
    let foreign = ["tonic", "http", "hyper", "clap", "prost", "prometheus", "opentelemetry"];
    let tree = Tree::of(Path::new("src/lib.rs"));
    for module in tree.0.iter().filter(|module| module.path.first().is_some_and(|top| top == "hub")) {
        let named = module.named.iter().chain(&module.globs);
        let wrong: Vec<_> = named.filter(|path| foreign.contains(&path[0].as_str())).collect();
        assert!(wrong.is_empty(), "{}: {wrong:?}", module.file.display());
    }
}

#[test]
fn check_finds_planted_imports() {
    let folder = std::env::temp_dir().join(format!("chatroom-layers-{}", std::process::id()));
    let files = [
        ("lib.rs", "pub mod config; pub mod hub;"),
        ("config.rs", "pub struct Config; fn f() { println!(\"{}\", crate::hub::b::B); }"),
        ("hub/mod.rs", "mod a; pub mod b; pub use a::A;"),
        (
            "hub/a.rs",
            "use super::b::B; pub struct A(B); #[cfg(test)] mod tests { use crate::config::Config; }",
        ),
        ("hub/b.rs", "pub struct B; impl B { fn a() -> super::A { todo!() } }"),
    ];
    for (file, code) in files {
        let file = folder.join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, code).unwrap();
    }
    let tree = Tree::of(&folder.join("lib.rs"));
    let (wrong, cycles) = (upward(&tree), tree.cycles());
    let cycles: Vec<Vec<_>> =
        cycles.iter().map(|cycle| cycle.iter().map(|file| file.file_name().unwrap()).collect()).collect();
    assert_eq!((wrong.len(), cycles), (1, vec![vec!["a.rs".as_ref(), "b.rs".as_ref()]]), "{wrong:?}");
    fs::remove_dir_all(&folder).unwrap();
}
