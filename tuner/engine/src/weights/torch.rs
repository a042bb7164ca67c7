//! Files of `torch.save`: a pickle that describes tensors, and their values.
//!
//! Since PyTorch 1.6 they are zip archives with the pickle as `<folder>/data.pkl` and each storage
//! as `<folder>/data/<key>`. Earlier ones are pickles one after the other: a magic number, the
//! version of the protocol, facts of the system, the description, and the keys of the storages,
//! which follow in this order, each behind its number of elements.
//!
//! Containers in containers give names with dots: `{"state_dict": {"fc.bias": ..}}` has a
//! tensor `state_dict.fc.bias`.

use std::collections::BTreeMap;

use crate::util::files::one_line;
use crate::util::read_at::Section;
use crate::weights::archive::{Members, bytes, member};
use crate::weights::pickle::Pickle;
use crate::weights::tensor_file::{Container, Opened, ReadError, TensorFile, TensorInfo, Tensors};
use crate::weights::torch_values::{Id, TensorView, Value};

/// Where archives have the pickle, in a folder.
pub(super) const PICKLE: &str = "data.pkl";

/// Files that are not archives.
pub(super) const TORCH_LEGACY: Container = Container {
    name: "PyTorch",
    title: "PyTorch (.pt or .pth)",
    recognises: |magic| magic.starts_with(LEGACY_MAGIC),
    open: |section, _| open_legacy(&section),
};

/// The pickle of the number 0x1950a86a20f9469cfc6c.
const LEGACY_MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e";

/// More than the description of any network.
const MAX_PICKLE: u64 = 16 << 20;

/// Containers in containers, at most.
const MAX_DEPTH: usize = 16;

/// Values of containers in containers, at most.
const MAX_VISITS: usize = 1_000_000;

#[derive(Debug)]
struct Torch {
    views: BTreeMap<String, TensorView>,
    storages: BTreeMap<String, Section>,
}

/// Opens an archive whose members are in a folder, of which the name ends in `/`.
pub(super) fn open_archive(members: &Members, folder: &str) -> Result<Opened, ReadError> {
    if let Ok(order) = member(members, &format!("{folder}byteorder"))
        && bytes(&order, 16)? != b"little"
    {
        return Err(ReadError::Content {
            found: "values with the highest byte first".to_owned(),
            expected: "the lowest first".to_owned(),
        });
    }
    let pickle = bytes(&member(members, &format!("{folder}{PICKLE}"))?, MAX_PICKLE)?;
    let (pickle, root, _) = Pickle::read(&pickle)?;
    let prefix = format!("{folder}data/");
    let storages = members
        .iter()
        .filter_map(|(name, section)| Some((name.strip_prefix(&prefix)?.to_owned(), section.clone()?)));
    opened(&pickle, root, storages.collect())
}

fn open_legacy(section: &Section) -> Result<Opened, ReadError> {
    let mut head = vec![0; section.size().min(MAX_PICKLE) as usize];
    section.read_exact_at(&mut head, 0)?;
    let mut rest = &head[..];
    // The magic number, the protocol's version, the system.
    for _ in 0..3 {
        (_, _, rest) = Pickle::read(rest)?;
    }
    let (pickle, root, rest) = Pickle::read(rest)?;
    let (keys, list, rest) = Pickle::read(rest)?;
    let Value::List(list) = keys.get(list) else { return Err(ReadError::damaged("no list of storages")) };
    let sizes = pickle.storages();
    let (mut at, mut storages) = ((head.len() - rest.len()) as u64, BTreeMap::new());
    for key in list {
        let Value::Text(key) = keys.get(*key) else { return Err(ReadError::damaged("a key is no text")) };
        let bytes = sizes.get(&key[..]).and_then(|storage| storage.bytes());
        let bytes =
            bytes.ok_or_else(|| ReadError::damaged(format!("storage {} is of no tensor", one_line(key))))?;
        // Its number of elements comes first.
        let storage = section.part(at.saturating_add(8), bytes);
        let storage = storage.ok_or_else(|| ReadError::damaged("a storage lies outside the file"))?;
        storages.insert(key.clone(), storage);
        at += 8 + bytes;
    }
    opened(&pickle, root, storages)
}

fn opened(pickle: &Pickle, root: Id, storages: BTreeMap<String, Section>) -> Result<Opened, ReadError> {
    let mut collector = Collector {
        pickle,
        path: Vec::new(),
        views: BTreeMap::new(),
        containers: BTreeMap::new(),
        left: MAX_VISITS,
    };
    collector.visit(root)?;
    let views = collector.views;
    let containers = collector.containers;
    let info = |(name, view): (&String, &TensorView)| {
        let (shape, elements) = (view.shape.clone(), view.storage.elements.clone());
        let group = containers.get(name).cloned();
        (name.clone(), TensorInfo { group, shape, elements })
    };
    let tensors: Tensors = views.iter().map(info).collect();
    let file = Box::new(Torch { views, storages });
    Ok(Opened { tensors, file, model_config: None, others: Vec::new() })
}

/// Finds the tensors of containers in containers, by their names with dots.
struct Collector<'a> {
    pickle: &'a Pickle,
    path: Vec<String>,
    views: BTreeMap<String, TensorView>,
    /// The name of the dictionary that each is in.
    containers: BTreeMap<String, String>,
    /// Values that may still be visited: containers can be in many others, or in themselves.
    left: usize,
}

impl Collector<'_> {
    fn visit(&mut self, id: Id) -> Result<(), ReadError> {
        self.left = self.left.checked_sub(1).ok_or_else(|| ReadError::damaged("values without end"))?;
        match self.pickle.get(id) {
            Value::Tensor(view) => {
                let name = self.path.join(".");
                if self.views.contains_key(&name) {
                    return Err(ReadError::damaged(format!("two tensors {}", one_line(&name))));
                }
                let container = self.path.split_last().map_or(String::new(), |(_, outer)| outer.join("."));
                self.containers.insert(name.clone(), container);
                self.views.insert(name, view.clone());
                Ok(())
            }
            Value::Dict(items) => items.iter().try_for_each(|(key, value)| {
                let key = match self.pickle.get(*key) {
                    Value::Text(key) => key.clone(),
                    Value::Int(key) => key.to_string(),
                    _ => "?".to_owned(),
                };
                self.visit_in(key, *value)
            }),
            Value::List(items) => {
                items.iter().enumerate().try_for_each(|(at, value)| self.visit_in(at.to_string(), *value))
            }
            _ => Ok(()),
        }
    }

    fn visit_in(&mut self, key: String, value: Id) -> Result<(), ReadError> {
        if self.path.len() == MAX_DEPTH {
            return Err(ReadError::damaged("containers in containers without end"));
        }
        self.path.push(key);
        self.visit(value)?;
        self.path.pop();
        Ok(())
    }
}

impl TensorFile for Torch {
    fn read_f32(&self, name: &str, _: &TensorInfo) -> Result<Vec<f32>, ReadError> {
        let view = self.views.get(name).ok_or_else(|| ReadError::damaged("not found"))?;
        let key = &view.storage.key;
        let storage = self
            .storages
            .get(key)
            .ok_or_else(|| ReadError::damaged(format!("no storage {}", one_line(key))))?;
        let span = view.span().ok_or_else(|| ReadError::damaged("it reaches beyond its storage"))?;
        let at = span.start as u64 * view.storage.size;
        let values = view.storage.elements.read(storage, at, span.len())?;
        Ok(view.in_order(values))
    }
}
