//! Messages: in words of the user, not of a library.

use super::*;

/// Words of the libraries that read JSON and files.
const INTERNAL: [&str; 9] = [
    "ident",
    "expected value",
    "trailing characters",
    "EOF while parsing",
    "invalid type",
    "usize",
    "struct ",
    "failed to fill whole buffer",
    "valid UTF-8",
];

fn assert_plain(err: &str) {
    for words in INTERNAL {
        assert!(!err.contains(words), "`{words}` is in {err}");
    }
}

#[test]
fn what_is_no_plan_is_told_in_plain_words() {
    let folder = Folder::new();
    let text = SMALL_PLAN.to_string();
    let no_plan = "expected a plan: JSON that `tuner tune` writes";
    let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (bytes, parts) in [
        (b"".to_vec(), ["found an empty file", no_plan]),
        (b"no plan".to_vec(), ["found a text that is no JSON at line 1 column 2", no_plan]),
        (b"null".to_vec(), ["found JSON that is no object", no_plan]),
        (text.as_bytes()[..text.len() / 2].to_vec(), ["found JSON that ends too early at line 1", no_plan]),
        (format!("{text}{text}").into_bytes(), ["found a text that is no JSON at line 1", no_plan]),
        (vec![0xff, 0xfe, 0x80], ["found bytes that are no text", no_plan]),
        (utf16, ["found ", no_plan]),
    ] {
        folder.write("p.json", &bytes);
        for command in ["explain x", "report --out r", "spot", &format!("run {SMALL}")] {
            let err =
                folder.refuses(&format!("{command} --plan p.json"), &[&["p.json: "], &parts[..]].concat());
            assert_plain(&err);
        }
    }
}

#[test]
fn a_field_of_another_type_is_told_in_plain_words() {
    let edits: &[Edit] = &[
        ("threads: found string \"one\", expected a whole number", |p| p["threads"] = "one".into()),
        ("batch: found integer `-1`, expected a whole number", |p| p["batch"] = (-1).into()),
        ("steps: found integer `3`, expected a list", |p| p["steps"] = 3.into()),
        ("machine: found string \"here\", expected an object", |p| p["machine"] = "here".into()),
        ("plan: `model` is missing", |p| drop(p.as_object_mut().expect("an object").remove("model"))),
    ];
    for (part, edit) in edits {
        let mut plan = SMALL_PLAN.clone();
        edit(&mut plan);
        let folder = Folder::with_plan(&plan);
        assert_plain(&folder.refuses("explain conv2d_bn.conv --plan p.json", &["p.json: ", part]));
    }
}

#[test]
fn a_file_that_is_cut_off_is_told_in_plain_words() {
    let folder = Folder::new();
    let run = format!("run {SMALL} --threads 1 --packed w.packed");
    folder.succeeds(&run);
    let packed = folder.read("w.packed");
    folder.write("w.packed", &packed[..packed.len() - 1]);
    let Ran { err, .. } = folder.run(&run);
    assert_contains(&err, &["w.packed", "the file ends too early"]);
    assert_plain(&err);
    folder.write("w.safetensors", b"\x08\0\0\0\0\0\0\0{\"a\": no");
    let err = folder.refuses(&format!("run {SMALL} --weights w.safetensors"), &["w.safetensors"]);
    assert_plain(&err);
}

#[test]
fn no_classes_have_no_heads() {
    let folder = Folder::new();
    let out = folder.succeeds("run --model inception_v3 --size 75x75 --threads 1 --top 0");
    assert_eq!(out, "plan: built-in choice\n");
}
