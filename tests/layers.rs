//! The layer table of `src/lib.rs`: a module imports only from layers below its own.

#![allow(clippy::unwrap_used, reason = "in tests a panic is the answer")]

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The layers, lowest first; `main`, `cli` and `cmd` share the highest.
const LAYERS: &[&[&str]] = &[
    &["config", "wire", "metrics", "rpc"],
    &["telemetry", "drain"],
    &["transport"],
    &["hub"],
    &["chat", "admin", "health", "http", "client"],
    &["server"],
    &["main", "cli", "cmd"],
];

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// Imports within the highest layer are allowed: a command knows the flags.
fn allowed(from: &str, to: &str) -> bool {
    let (from_layer, to_layer) = (layer_of(from), layer_of(to));
    from == to || from_layer > to_layer || from_layer == Some(LAYERS.len() - 1)
}

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}

/// The top-level module that a file of `src/` belongs to.
fn module_of(file: &Path) -> String {
    let below_src = file.strip_prefix("src").unwrap();
    let first = below_src.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// Every top-level module that the code names as `crate::module`, also within `crate::{…}`.
fn imports(code: &str) -> Vec<String> {
    let code: String = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let mut found = Vec::new();
    for (at, name) in code.match_indices("crate::").chain(code.match_indices("chatroom::")) {
        let rest = &code[at + name.len()..];
        match rest.strip_prefix('{') {
            Some(group) => found.extend(first_names(group)),
            None => found.push(identifier(rest)),
        }
    }
    found
}

fn first_names(group: &str) -> Vec<String> {
    let (mut depth, mut names, mut item) = (0, Vec::new(), String::new());
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(std::mem::take(&mut item)),
            _ => item.push(c),
        }
    }
    names.push(item);
    names.iter().map(|name| identifier(name.trim())).filter(|name| !name.is_empty()).collect()
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

#[test]
fn imports_go_only_downward() {
    let mut files = Vec::new();
    rust_files(Path::new("src"), &mut files);
    let mut wrong = Vec::new();
    for file in files.iter().filter(|file| !file.ends_with("lib.rs")) {
        let from = module_of(file);
        assert!(layer_of(&from).is_some(), "{} is in no layer: add it to the table", file.display());
        for to in imports(&fs::read_to_string(file).unwrap()) {
            if layer_of(&to).is_some() && !allowed(&from, &to) {
                wrong.push(format!("{} imports {to}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_hub_knows_no_grpc_no_http_and_no_flags() {
    let mut files = Vec::new();
    rust_files(Path::new("src/hub"), &mut files);
    let foreign = ["tonic", "http::", "hyper", "clap", "prost", "prometheus", "opentelemetry"];
    for file in files {
        let code = fs::read_to_string(&file).unwrap();
        let used = code.lines().filter(|line| !line.trim_start().starts_with("//"));
        let named: Vec<_> = used.filter(|line| foreign.iter().any(|name| line.contains(name))).collect();
        assert!(named.is_empty(), "{}: {named:?}", file.display());
    }
}

#[test]
fn the_check_finds_an_upward_import_in_any_form() {
    let found = imports("use crate::server::Server;\nuse crate::{chat::{A, B}, config};\ncrate::cmd::run();");
    let mut counts = HashMap::new();
    for name in &found {
        *counts.entry(name.as_str()).or_insert(0) += 1;
    }
    assert_eq!(counts, HashMap::from([("server", 1), ("chat", 1), ("config", 1), ("cmd", 1)]));
    assert!(!allowed("hub", "chat") && !allowed("transport", "hub") && !allowed("chat", "health"));
    assert!(allowed("server", "hub") && allowed("hub", "wire") && allowed("cmd", "cli"));
}
