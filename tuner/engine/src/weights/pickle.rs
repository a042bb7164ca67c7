//! Pickles of PyTorch, read without executing anything: tensors, dictionaries, lists, texts and
//! numbers. A class or function that is none of those is refused by its name.
//!
//! A pickle is a program for a machine with a stack and a memo (Python's `pickletools.py` lists its
//! instructions). Python calls what a program names. Here only what `torch_values` lists is known,
//! and it makes values.

use std::collections::{BTreeMap, HashMap};

use crate::util::files::one_line;
use crate::weights::tensor_file::ReadError;
use crate::weights::torch_values::{Global, Id, Storage, TensorView, Value};

/// What a pickle may make, counted by [`Value::weight`]: more than any file of weights holds.
const MAX_WEIGHT: usize = 1_000_000;

/// The values of one pickle.
#[derive(Debug, Default)]
pub(super) struct Pickle {
    values: Vec<Value>,
}

impl Pickle {
    /// Reads one pickle, and gives its value and what follows it in the bytes.
    pub fn read(bytes: &[u8]) -> Result<(Self, Id, &[u8]), ReadError> {
        let mut machine = Machine { input: bytes, ..Machine::default() };
        let result = machine.run()?;
        Ok((machine.pickle, result, machine.input))
    }

    pub fn get(&self, id: Id) -> &Value {
        &self.values[id]
    }

    /// All storages by their keys.
    pub fn storages(&self) -> BTreeMap<&str, &Storage> {
        let storages = self.values.iter().filter_map(|value| match value {
            Value::Storage(storage) => Some((&storage.key[..], storage)),
            _ => None,
        });
        storages.collect()
    }
}

/// Reads a program and does what its instructions say.
#[derive(Default)]
struct Machine<'a> {
    /// What has not been read.
    input: &'a [u8],
    pickle: Pickle,
    stack: Vec<Id>,
    /// Lengths of the stack where `MARK` was met.
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
    /// The weight of all values so far.
    made: usize,
}

type Step<T = ()> = Result<T, ReadError>;

fn damaged<T>(reason: &str) -> Step<T> {
    Err(ReadError::damaged(format!("pickle: {reason}")))
}

impl Machine<'_> {
    /// Runs up to `STOP`; gives the value on the stack.
    fn run(&mut self) -> Step<Id> {
        loop {
            let [instruction] = self.take()?;
            if instruction == b'.' {
                return self.pop();
            }
            self.step(instruction)?;
        }
    }

    fn step(&mut self, instruction: u8) -> Step {
        match instruction {
            // PROTO, FRAME
            0x80 => self.take::<1>().map(drop),
            0x95 => self.take::<8>().map(drop),
            b'(' => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            b'0' => self.pop().map(drop),
            b'1' => self.since_mark().map(drop),
            b'2' => self.top().and_then(|id| self.push_id(id)),
            b'N' | b'K' | b'M' | b'J' | b'G' | 0x88..=0x8b => self.number(instruction),
            b'X' | 0x8c | 0x8d | b'T' | b'U' | b'B' | b'C' | 0x8e => self.text(instruction),
            b')' | b']' | 0x8f => self.push(Value::List(Vec::new())),
            b'}' => self.push(Value::Dict(Vec::new())),
            b't' | b'l' | 0x91 => self.since_mark().and_then(|items| self.push(Value::List(items))),
            0x85..=0x87 => self.tuple(usize::from(instruction - 0x84)),
            b'd' => self.since_mark().and_then(|items| self.push(Value::Dict(pairs(items)?))),
            b'a' => self.pop().and_then(|item| self.append(vec![item])),
            b'e' | 0x90 => self.since_mark().and_then(|items| self.append(items)),
            b's' => self.pop_pair().and_then(|pair| self.set_items(vec![pair])),
            b'u' => self.since_mark().and_then(|items| self.set_items(pairs(items)?)),
            b'q' | b'r' | 0x94 | b'h' | b'j' => self.memo(instruction),
            b'c' => self.global_line(),
            0x93 => self.global_on_stack(),
            b'Q' => self.persistent(),
            b'R' | 0x81 => self.call(),
            // BUILD: attributes of dictionaries, which hold no weights.
            b'b' => self.pop().map(drop),
            other => damaged(&format!("instruction {other:#04x} is not known")),
        }
    }

    fn take<const N: usize>(&mut self) -> Step<[u8; N]> {
        match self.input.split_first_chunk() {
            Some((bytes, rest)) => {
                self.input = rest;
                Ok(*bytes)
            }
            None => damaged("it ends too early"),
        }
    }

    fn take_bytes(&mut self, len: u64) -> Step<&[u8]> {
        let split = usize::try_from(len).ok().and_then(|len| self.input.split_at_checked(len));
        let Some((bytes, rest)) = split else { return damaged("it ends too early") };
        self.input = rest;
        Ok(bytes)
    }

    fn take_line(&mut self) -> Step<&str> {
        let Some(end) = self.input.iter().position(|byte| *byte == b'\n') else {
            return damaged("it ends too early");
        };
        let (line, rest) = (&self.input[..end], &self.input[end + 1..]);
        self.input = rest;
        std::str::from_utf8(line).or_else(|_| damaged("a name is no text"))
    }

    fn count(&mut self, weight: usize) -> Step {
        self.made += weight;
        if self.made > MAX_WEIGHT { damaged("values without end") } else { Ok(()) }
    }

    fn push(&mut self, value: Value) -> Step {
        self.count(value.weight())?;
        self.pickle.values.push(value);
        self.push_id(self.pickle.values.len() - 1)
    }

    /// The stack is as large as a pickle may be: each of its bytes can push.
    fn push_id(&mut self, id: Id) -> Step {
        if self.stack.len() >= MAX_WEIGHT {
            return damaged("values without end");
        }
        self.stack.push(id);
        Ok(())
    }

    fn top(&self) -> Step<Id> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let above = self.stack.get(floor..).unwrap_or_default();
        above.last().copied().map_or_else(|| damaged("the stack is empty"), Ok)
    }

    fn pop(&mut self) -> Step<Id> {
        let id = self.top()?;
        self.stack.pop();
        Ok(id)
    }

    /// The value on the stack and the one below it, in order of their making.
    fn pop_pair(&mut self) -> Step<(Id, Id)> {
        let second = self.pop()?;
        Ok((self.pop()?, second))
    }

    fn since_mark(&mut self) -> Step<Vec<Id>> {
        match self.marks.pop() {
            Some(mark) if mark <= self.stack.len() => Ok(self.stack.split_off(mark)),
            _ => damaged("a mark is missing"),
        }
    }

    /// None, booleans, integers and floating-point numbers.
    fn number(&mut self, instruction: u8) -> Step {
        let value = match instruction {
            b'N' => Value::Nothing,
            0x88 => Value::Int(1),
            0x89 => Value::Int(0),
            b'K' => Value::Int(self.take::<1>()?[0].into()),
            b'M' => Value::Int(u16::from_le_bytes(self.take()?).into()),
            b'J' => Value::Int(i32::from_le_bytes(self.take()?).into()),
            b'G' => Value::Float(f64::from_be_bytes(self.take()?)),
            0x8a => {
                let [len] = self.take()?;
                long(self.take_bytes(len.into())?)
            }
            _ => {
                let len = u32::from_le_bytes(self.take()?);
                long(self.take_bytes(len.into())?)
            }
        };
        self.push(value)
    }

    /// Texts and bytes, by the width of their length.
    fn text(&mut self, instruction: u8) -> Step {
        let len = match instruction {
            0x8c | b'U' | b'C' => self.take::<1>()?[0].into(),
            0x8d | 0x8e => u64::from_le_bytes(self.take()?),
            _ => u32::from_le_bytes(self.take()?).into(),
        };
        let text = String::from_utf8_lossy(self.take_bytes(len)?).into_owned();
        self.push(Value::Text(text))
    }

    fn tuple(&mut self, len: usize) -> Step {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.len().checked_sub(len) {
            Some(start) if start >= floor => {
                let items = self.stack.split_off(start);
                self.push(Value::List(items))
            }
            _ => damaged("the stack is empty"),
        }
    }

    fn append(&mut self, items: Vec<Id>) -> Step {
        self.count(items.len())?;
        let list = self.top()?;
        match &mut self.pickle.values[list] {
            Value::List(list) => list.extend(items),
            _ => return damaged("items of what is no list"),
        }
        Ok(())
    }

    fn set_items(&mut self, items: Vec<(Id, Id)>) -> Step {
        self.count(items.len())?;
        let dict = self.top()?;
        match &mut self.pickle.values[dict] {
            Value::Dict(dict) => dict.extend(items),
            _ => return damaged("items of what is no dictionary"),
        }
        Ok(())
    }

    /// Keeps the value on the stack under a number, or pushes the one that is kept.
    fn memo(&mut self, instruction: u8) -> Step {
        let number = match instruction {
            0x94 => self.memo.len() as u64,
            b'q' | b'h' => self.take::<1>()?[0].into(),
            _ => u32::from_le_bytes(self.take()?).into(),
        };
        if matches!(instruction, b'h' | b'j') {
            let Some(kept) = self.memo.get(&number).copied() else { return damaged("a value is not kept") };
            return self.push_id(kept);
        }
        let top = self.top()?;
        self.memo.insert(number, top);
        Ok(())
    }

    fn global_line(&mut self) -> Step {
        let module = self.take_line()?.to_owned();
        let name = format!("{module}.{}", self.take_line()?);
        self.global(&name)
    }

    fn global_on_stack(&mut self) -> Step {
        let (module, name) = self.pop_pair()?;
        match (self.pickle.get(module), self.pickle.get(name)) {
            (Value::Text(module), Value::Text(name)) => self.global(&format!("{module}.{name}")),
            _ => damaged("a name is no text"),
        }
    }

    fn global(&mut self, name: &str) -> Step {
        match Global::by_name(name) {
            Some(global) => self.push(Value::Global(global)),
            None => Err(ReadError::Content {
                found: format!("an object of {}, which is not read", one_line(name)),
                expected: "tensors in dictionaries, as `torch.save(model.state_dict(), ..)` writes"
                    .to_owned(),
            }),
        }
    }

    /// A storage: the tuple `('storage', type, key, device, length, ..)`.
    fn persistent(&mut self) -> Step {
        let id = self.pop()?;
        let parts: Vec<&Value> = self.items(id)?.iter().map(|id| self.pickle.get(*id)).collect();
        match parts[..] {
            [
                Value::Text(_),
                Value::Global(Global::Elements(elements, size)),
                Value::Text(key),
                _,
                Value::Int(len),
                ..,
            ] => {
                let len = usize::try_from(*len).or_else(|_| damaged("a storage of less than nothing"))?;
                let (key, elements, size) = (key.clone(), elements.clone(), *size);
                self.push(Value::Storage(Storage { key, elements, len, size }))
            }
            _ => damaged("a storage is not described as PyTorch does"),
        }
    }

    /// REDUCE and NEWOBJ: what a known class or function makes of its arguments.
    fn call(&mut self) -> Step {
        let (called, arguments) = self.pop_pair()?;
        let Value::Global(global) = self.pickle.get(called) else { return damaged("a call of no function") };
        let arguments = self.items(arguments)?.to_vec();
        let value = match (global, &arguments[..]) {
            (Global::Dict, []) => Value::Dict(Vec::new()),
            (Global::Dict, [items, ..]) => match self.pickle.get(*items) {
                Value::Dict(items) => Value::Dict(items.clone()),
                Value::List(items) => Value::Dict(self.dict_of(items)?),
                _ => Value::Dict(Vec::new()),
            },
            (Global::Set | Global::Size, [items]) => self.pickle.get(*items).clone(),
            (Global::Parameter, [data, ..]) => self.pickle.get(*data).clone(),
            (Global::Tensor, [storage, offset, shape, strides, ..]) => {
                Value::Tensor(self.tensor(*storage, *offset, *shape, *strides)?)
            }
            (Global::Device, _) => Value::Nothing,
            _ => return damaged("a call with other arguments than PyTorch's"),
        };
        self.push(value)
    }

    /// A dictionary of a list of pairs.
    fn dict_of(&self, items: &[Id]) -> Step<Vec<(Id, Id)>> {
        let pair = |id: &Id| match self.items(*id)? {
            [key, value] => Ok((*key, *value)),
            _ => damaged("a pair is none"),
        };
        items.iter().map(pair).collect()
    }

    fn tensor(&self, storage: Id, offset: Id, shape: Id, strides: Id) -> Step<TensorView> {
        let Value::Storage(storage) = self.pickle.get(storage) else {
            return damaged("a tensor of no storage");
        };
        let number = |id: Id| match self.pickle.get(id) {
            Value::Int(number) => usize::try_from(*number).or_else(|_| damaged("a size below zero")),
            _ => damaged("a size is no number"),
        };
        let numbers = |id: Id| self.items(id)?.iter().map(|id| number(*id)).collect::<Step<Vec<usize>>>();
        let (offset, shape, strides) = (number(offset)?, numbers(shape)?, numbers(strides)?);
        let tensor = TensorView { storage: storage.clone(), offset, shape, strides };
        if tensor.span().is_some() { Ok(tensor) } else { damaged("a tensor reaches beyond its storage") }
    }

    fn items(&self, id: Id) -> Step<&[Id]> {
        match self.pickle.get(id) {
            Value::List(items) => Ok(items),
            _ => damaged("no list where one is expected"),
        }
    }
}

/// A long integer, lowest byte first; beyond 64 bits it is nothing that weights need.
fn long(bytes: &[u8]) -> Value {
    let sign = if bytes.last().is_some_and(|byte| *byte >= 0x80) { 0xff } else { 0 };
    let mut all = [sign; 8];
    match all.get_mut(..bytes.len()) {
        Some(low) => low.copy_from_slice(bytes),
        None => return Value::Nothing,
    }
    Value::Int(i64::from_le_bytes(all))
}

fn pairs(items: Vec<Id>) -> Step<Vec<(Id, Id)>> {
    match items.as_chunks() {
        (pairs, []) => Ok(pairs.iter().map(|&[key, value]| (key, value)).collect()),
        _ => damaged("a key without a value"),
    }
}
