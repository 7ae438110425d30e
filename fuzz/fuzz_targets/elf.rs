//! An ELF file, as it is read from a layer.
#![no_main]

use cargo_lambda_image::layer::elf::{self, Parts};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = elf::read_bytes(data);
    let _ = elf::glibc_version(data);
    // And as one that is too large to be held: its first half, and the dynamic section from wherever it is.
    let (head, rest) = data.split_at(data.len() / 2);
    let start = head.len() as u64;
    let section = elf::dynamic_section(head).and_then(|(offset, size)| {
        let (from, size) = (usize::try_from(offset.checked_sub(start)?).ok()?, usize::try_from(size).ok()?);
        Some((offset, rest.get(from..from.checked_add(size)?)?))
    });
    let (offset, part) = section.unwrap_or((start, &[]));
    let _ = elf::read_parts(&Parts { head, offset, part, size: data.len() as u64 });
});
