//! What pickles of PyTorch are made of: texts, numbers, lists, dictionaries and tensors.

use std::borrow::Cow;
use std::ops::Range;

use crate::weights::tensor_file::Elements;

/// A value by its number, see [`super::pickle`].
pub(super) type Id = usize;

/// What a pickle makes.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// None, or something that holds no weights.
    Nothing,
    Int(i64),
    Float(f64),
    Text(String),
    /// A tuple, a list or a set.
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(&'static Global),
    Storage(Storage),
    Tensor(TensorView),
}

impl Value {
    /// Its size, one for each member and each 16 bytes of text.
    pub fn weight(&self) -> usize {
        let text = |text: &str| text.len() / 16;
        1 + match self {
            Self::List(items) => items.len(),
            Self::Dict(items) => 2 * items.len(),
            Self::Text(value) => text(value),
            Self::Storage(storage) => text(&storage.key),
            Self::Tensor(tensor) => text(&tensor.storage.key) + 2 * tensor.shape.len(),
            Self::Nothing | Self::Int(_) | Self::Float(_) | Self::Global(_) => 0,
        }
    }
}

/// A class or a function that this reader knows.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Global {
    Dict,
    Set,
    /// `torch.Size`, a tuple.
    Size,
    Tensor,
    Parameter,
    /// A storage of elements, or the type of elements, with the bytes of one.
    Elements(Elements, u64),
    Device,
}

/// What PyTorch's files of weights name.
static GLOBALS: [(&str, Global); 28] = [
    ("collections.OrderedDict", Global::Dict),
    ("collections.defaultdict", Global::Dict),
    ("builtins.dict", Global::Dict),
    ("builtins.set", Global::Set),
    ("builtins.list", Global::Set),
    ("torch.Size", Global::Size),
    ("torch.device", Global::Device),
    ("torch._utils._rebuild_tensor_v2", Global::Tensor),
    ("torch._utils._rebuild_tensor", Global::Tensor),
    ("torch._utils._rebuild_parameter", Global::Parameter),
    ("torch.FloatStorage", Global::Elements(Elements::F32, 4)),
    ("torch.HalfStorage", Global::Elements(Elements::F16, 2)),
    ("torch.BFloat16Storage", Global::Elements(Elements::Bf16, 2)),
    ("torch.DoubleStorage", Global::Elements(Elements::F64, 8)),
    ("torch.LongStorage", integers("int64", 8)),
    ("torch.IntStorage", integers("int32", 4)),
    ("torch.ShortStorage", integers("int16", 2)),
    ("torch.CharStorage", integers("int8", 1)),
    ("torch.ByteStorage", integers("uint8", 1)),
    ("torch.BoolStorage", integers("bool", 1)),
    ("torch.float32", Global::Elements(Elements::F32, 4)),
    ("torch.float16", Global::Elements(Elements::F16, 2)),
    ("torch.bfloat16", Global::Elements(Elements::Bf16, 2)),
    ("torch.float64", Global::Elements(Elements::F64, 8)),
    ("torch.int64", integers("int64", 8)),
    ("torch.int32", integers("int32", 4)),
    ("torch.uint8", integers("uint8", 1)),
    ("torch.bool", integers("bool", 1)),
];

/// Elements that are no weights.
const fn integers(name: &'static str, bytes: u64) -> Global {
    Global::Elements(Elements::Other(Cow::Borrowed(name)), bytes)
}

impl Global {
    /// The one of this name, module and all; in protocol 2, `builtins` has the name of Python 2.
    pub fn by_name(name: &str) -> Option<&'static Self> {
        let name =
            name.strip_prefix("__builtin__.").map_or(name.to_owned(), |name| format!("builtins.{name}"));
        GLOBALS.iter().find(|(known, _)| *known == name).map(|(_, global)| global)
    }
}

/// Elements in one piece of the file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Storage {
    /// Its name in the file.
    pub key: String,
    pub elements: Elements,
    /// How many.
    pub len: usize,
    /// Bytes of an element.
    pub size: u64,
}

impl Storage {
    /// Bytes of all elements; none if that is beyond all numbers.
    pub fn bytes(&self) -> Option<u64> {
        (self.len as u64).checked_mul(self.size)
    }
}

/// Elements of a storage, by their strides.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TensorView {
    pub storage: Storage,
    pub offset: usize,
    pub shape: Vec<usize>,
    pub strides: Vec<usize>,
}

impl TensorView {
    /// The elements of the storage from the first of the tensor to its last; none if they are not
    /// inside, or more than the storage has.
    pub fn span(&self) -> Option<Range<usize>> {
        let TensorView { storage, shape, strides, offset } = self;
        let count = shape.iter().try_fold(1usize, |count, size| count.checked_mul(*size))?;
        if shape.len() != strides.len() || count > storage.len {
            return None;
        }
        if count == 0 {
            return Some(0..0);
        }
        let last = shape
            .iter()
            .zip(strides)
            .try_fold(*offset, |last, (size, stride)| last.checked_add((size - 1).checked_mul(*stride)?));
        let end = last?.checked_add(1)?;
        (end <= storage.len).then_some(*offset..end)
    }

    /// The values of the span in the order of the tensor's axes.
    pub fn in_order(&self, span: Vec<f32>) -> Vec<f32> {
        let mut dense = 1;
        let is_in_order = self.shape.iter().zip(&self.strides).rev().all(|(size, stride)| {
            let as_dense = *size <= 1 || *stride == dense;
            dense *= size;
            as_dense
        });
        if is_in_order {
            return span;
        }
        let mut offsets = vec![0];
        for (size, stride) in self.shape.iter().zip(&self.strides) {
            offsets =
                offsets.iter().flat_map(|at| (0..*size).map(move |index| at + index * stride)).collect();
        }
        offsets.into_iter().map(|at: usize| span[at]).collect()
    }
}
