//! The files that are delivered, and whether they arrived.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use crate::Result;

/// Makes `dir` empty, whether or not it was there.
pub fn empty(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::create_dir_all(dir)
}

/// Fills `dir` with `count` files of `size` bytes each that no two of them share.
pub fn files(dir: &Path, count: u64, size: u64) -> Result<()> {
    empty(dir)?;
    let mut noise = blake3::Hasher::new().finalize_xof();
    let mut block = vec![0; 1 << 20];
    noise.fill(&mut block);
    for number in 0..count {
        let mut file = File::create(dir.join(format!("{number:05}.log")))?;
        let mut left = size;
        while left > 0 {
            // Other content in each block and file, at the price of one line.
            let line = format!("{number:012} {left:016} a line of a log\n");
            block[..line.len()].copy_from_slice(line.as_bytes());
            let length = left.min(block.len() as u64);
            file.write_all(&block[..usize::try_from(length)?])?;
            left -= length;
        }
    }
    Ok(())
}

/// Fails unless `target` holds every file of `source` with the same bytes.
pub fn compare(source: &Path, target: &Path) -> Result<()> {
    for entry in fs::read_dir(source)? {
        let path = entry?.path();
        let name = path.file_name().ok_or("a file without a name")?;
        let copy = target.join(name);
        let got = hash(&copy).map_err(|error| format!("{}: {error}", copy.display()))?;
        if got != hash(&path)? {
            return Err(format!("{} arrived with other bytes", copy.display()).into());
        }
    }
    Ok(())
}

fn hash(path: &Path) -> io::Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    io::copy(&mut File::open(path)?, &mut hasher)?;
    Ok(hasher.finalize())
}
