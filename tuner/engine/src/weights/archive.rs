//! Members of zip archives as parts of their file: both frameworks store them uncompressed.

use std::collections::BTreeMap;

use rawzip::{CompressionMethod, RECOMMENDED_BUFFER_SIZE, ZipArchive};

use crate::util::files::one_line;
use crate::util::read_at::Section;
use crate::weights::tensor_file::ReadError;

/// More than any network's tensors.
const MAX_MEMBERS: usize = 100_000;

/// Members by name; none where one is compressed.
pub(super) type Members = BTreeMap<String, Option<Section>>;

pub(super) fn members(section: &Section) -> Result<Members, ReadError> {
    let mut buffer = vec![0; RECOMMENDED_BUFFER_SIZE];
    let archive = ZipArchive::from_file(section.file().try_clone()?, &mut buffer);
    let archive = archive.map_err(ReadError::damaged)?;
    let (mut entries, mut members) = (archive.entries(&mut buffer), Members::new());
    while let Some(entry) = entries.next_entry().map_err(ReadError::damaged)? {
        let name = String::from_utf8_lossy(entry.file_path().as_ref()).into_owned();
        let member = match entry.compression_method() {
            CompressionMethod::STORE => {
                let there = archive.get_entry(entry.wayfinder()).map_err(ReadError::damaged)?;
                let (start, end) = there.compressed_data_range();
                let part = section.part(start, end.saturating_sub(start));
                Some(part.ok_or_else(|| ReadError::damaged("a member lies outside the file"))?)
            }
            _ => None,
        };
        if members.len() == MAX_MEMBERS || members.insert(name, member).is_some() {
            return Err(ReadError::damaged("two members of one name, or members without end"));
        }
    }
    Ok(members)
}

/// A member that must be there.
pub(super) fn member(members: &Members, name: &str) -> Result<Section, ReadError> {
    let content = |found: &str| ReadError::Content {
        found: format!("{found} member {} of the archive", one_line(name)),
        expected: "it stored, as the frameworks write it".to_owned(),
    };
    match members.get(name) {
        Some(Some(section)) => Ok(section.clone()),
        Some(None) => Err(content("a compressed")),
        None => Err(content("no")),
    }
}

/// All bytes of a member, of which there may be so many.
pub(super) fn bytes(member: &Section, most: u64) -> Result<Vec<u8>, ReadError> {
    if member.size() > most {
        return Err(ReadError::damaged(format!(
            "a member of {} bytes, expected at most {most}",
            member.size()
        )));
    }
    let mut bytes = vec![0; member.size() as usize];
    member.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}
