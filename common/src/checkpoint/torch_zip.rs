//! A torch checkpoint since 1.6: a zip archive of one pickle, `data.pkl`, and one entry for each storage.

use std::collections::BTreeMap;

use super::torch::{self, PICKLE_BYTES_MAX};
use super::zip::Directory;
use super::{CheckpointError, StoredTensor, WeightFile, shown};

const FORMAT: &str = "torch checkpoint";
/// The pickle, in the archive's one folder, whose name is arbitrary.
const PICKLE: &str = "/data.pkl";
/// What the entry `byteorder` may have, if it is there.
const BYTE_ORDER: &[u8] = b"little";

/// The tensors of an archive.
pub(super) fn read(file: &WeightFile) -> Result<BTreeMap<String, StoredTensor>, CheckpointError> {
    let malformed = |what: &str| file.malformed(FORMAT, what);
    let directory = Directory::read(file)?;
    let in_folder = |name: &&String| name.strip_suffix(PICKLE).is_some_and(|folder| !folder.contains('/'));
    let pickle_name = directory.entries.keys().find(in_folder);
    let pickle_name = pickle_name.ok_or_else(|| malformed("the archive has no data.pkl"))?;
    let folder = pickle_name.strip_suffix(PICKLE).unwrap_or_default();
    let place = |name: &str| directory.place(file, &format!("{folder}/{name}"));
    if let Some((start, size)) = place("byteorder")?
        && file.bytes(start, size.min(BYTE_ORDER.len() as u64))? != BYTE_ORDER
    {
        return Err(malformed("its numbers are big-endian"));
    }
    let (start, size) = place("data.pkl")?.ok_or_else(|| malformed("the archive has no data.pkl"))?;
    if size > PICKLE_BYTES_MAX {
        return Err(malformed("its data.pkl is too long to be a list of tensors"));
    }
    let pickle = file.bytes(start, size)?;
    let checkpoint = torch::checkpoint(&pickle).map_err(|fault| fault.of(file))?;
    let mut starts = BTreeMap::new();
    for (key, storage) in &checkpoint.storages {
        let Some((start, size)) = place(&format!("data/{key}"))? else { continue };
        if storage.bytes().is_none_or(|bytes| bytes > size) {
            return Err(malformed(&format!("storage {:?} is shorter than its pickle says", shown(key))));
        }
        starts.insert(key.clone(), start);
    }
    checkpoint.placed(file, &starts)
}
