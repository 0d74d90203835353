// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Files that cannot be loaded as a kernel, but mostly contain one: compressed ones, EFI programs,
//! unified kernel images.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes at the start of a file that are looked at.
const START: usize = 0x40;
/// Offset of an EFI program's pointer to its PE header (Microsoft, PE Format, "MS-DOS Stub").
const PE_OFFSET: usize = 0x3c;
/// Bytes of the PE signature and the COFF header behind it.
const PE_HEADER: usize = 24;
/// Bytes of an entry of the section table.
const SECTION: usize = 40;
/// Sections that an EFI program can have (PE Format, "COFF File Header").
const MAX_SECTIONS: u16 = 96;
/// `Machine` of a program for x86, 64 and 32 bits.
const X86: [u16; 2] = [0x8664, 0x14c];
/// Offset of a compressed EFI kernel's payload description: offset, length, name of the compression
/// (drivers/firmware/efi/libstub/zboot-header.S).
const ZBOOT_MAGIC: (usize, &[u8]) = (4, b"zimg");
const ZBOOT_OFFSET: usize = 8;
const ZBOOT_LENGTH: usize = 12;
const ZBOOT_COMPRESSION: usize = 0x18;

/// What compressed files begin with, what they are called, and what unpacks them.
const COMPRESSED: &[(&[u8], &str, &str)] = &[
    (b"\x1f\x8b", "a gzip file", "gzip -dc"),
    (b"\x28\xb5\x2f\xfd", "a zstd file", "zstd -dc"),
    (b"\xfd7zXZ\0", "an xz file", "xz -dc"),
    (b"\x04\x22\x4d\x18", "an lz4 file", "lz4 -dc"),
    (b"\x02\x21\x4c\x18", "an lz4 file", "lz4 -dc"),
    (b"\x5d\0\0", "an lzma file", "xz -dc"),
    (b"\x89LZO", "an lzo file", "lzop -dc"),
    (b"BZh", "a bzip2 file", "bzip2 -dc"),
];

/// What a file is instead of a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Foreign {
    /// Its kind, with an article.
    pub found: &'static str,
    /// The command that gets the kernel out, where there is one in it.
    pub unpack: Option<String>,
}

impl Foreign {
    /// Looks at `file`, opened from `path`.
    ///
    /// # Errors
    /// The errno of reading it.
    pub fn recognise(path: &Path, file: &File) -> io::Result<Self> {
        let start = read(file, 0, START)?;
        let named = quoted(path);
        if let Some((_, found, tool)) = COMPRESSED.iter().find(|kind| start.starts_with(kind.0)) {
            return Ok(Self {
                found,
                unpack: Some(format!("{tool} < {named} > kernel")),
            });
        }
        if start.starts_with(b"MZ") {
            return efi(file, &start, &named);
        }
        Ok(Self {
            found: match start.len() {
                0..4 => "too short for either",
                _ => "a file of unknown format",
            },
            unpack: None,
        })
    }
}

/// What an EFI program that begins with `start` is.
fn efi(file: &File, start: &[u8], named: &str) -> io::Result<Foreign> {
    let foreign = |found, unpack| Ok(Foreign { found, unpack });
    let (at, magic) = ZBOOT_MAGIC;
    if start.get(at..).is_some_and(|rest| rest.starts_with(magic)) {
        return foreign("a compressed EFI kernel", unpack_zboot(start, named));
    }
    let Some(pe) = number(start, PE_OFFSET) else {
        return foreign("a DOS program", None);
    };
    let header = read(file, pe.into(), PE_HEADER)?;
    let half = |at: usize| Some(u16::from_le_bytes(header.get(at..at + 2)?.try_into().ok()?));
    let (Some(machine), Some(sections), Some(optional), true) =
        (half(4), half(6), half(20), header.starts_with(b"PE\0\0"))
    else {
        return foreign("a DOS program", None);
    };
    if !X86.contains(&machine) {
        return foreign("an EFI program for another kind of CPU", None);
    }
    let table = u64::from(pe) + PE_HEADER as u64 + u64::from(optional);
    let length = usize::from(sections.min(MAX_SECTIONS)) * SECTION;
    let table = read(file, table, length)?;
    if table
        .chunks_exact(SECTION)
        .any(|section| section.starts_with(b".linux\0"))
    {
        let unpack = format!("objcopy -O binary --only-section=.linux {named} kernel");
        return foreign("a unified kernel image", Some(unpack));
    }
    foreign("an EFI program", None)
}

/// The command that unpacks the kernel of an EFI kernel that begins with `start`; `None` if its
/// compression is unknown.
fn unpack_zboot(start: &[u8], named: &str) -> Option<String> {
    let (offset, length) = (number(start, ZBOOT_OFFSET)?, number(start, ZBOOT_LENGTH)?);
    let name = start
        .get(ZBOOT_COMPRESSION..)?
        .split(|byte| *byte == 0)
        .next()?;
    let tool = match name {
        b"gzip" => "gzip -dc",
        b"lz4" => "lz4 -dc",
        b"lzma" | b"xz" | b"xzkern" => "xz -dc",
        b"lzo" => "lzop -dc",
        name if name.starts_with(b"zstd") => "zstd -dc",
        _ => return None,
    };
    Some(format!(
        "dd if={named} iflag=skip_bytes,count_bytes bs=1M skip={offset} count={length} | {tool} > kernel"
    ))
}

/// Up to `length` bytes of `file` from `offset` on: fewer where it ends.
fn read(file: &File, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut done = 0;
    while done < length {
        match file.read_at(&mut bytes[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(done);
    Ok(bytes)
}

/// The 32-bit number at `at`.
fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

/// `path` as a shell takes it for one word.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+,:=@".contains(&byte);
    if !text.is_empty() && !text.starts_with('-') && text.bytes().all(is_plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn recognise(bytes: &[u8]) -> Foreign {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Foreign::recognise(Path::new("/boot/it"), &file).unwrap()
    }

    /// An EFI program for `machine` with these sections.
    fn program(machine: u16, sections: &[&[u8; 8]]) -> Vec<u8> {
        let mut bytes = b"MZ".to_vec();
        bytes.resize(PE_OFFSET, 0);
        bytes.extend(0x80_u32.to_le_bytes());
        bytes.resize(0x80, 0);
        bytes.extend(b"PE\0\0");
        bytes.extend(machine.to_le_bytes());
        bytes.extend(u16::try_from(sections.len()).unwrap().to_le_bytes());
        bytes.resize(0x80 + 20, 0);
        bytes.extend(240_u16.to_le_bytes());
        bytes.resize(0x80 + PE_HEADER + 240, 0);
        for name in sections {
            bytes.extend(*name);
            bytes.extend([0; SECTION - 8]);
        }
        bytes
    }

    fn zboot(compression: &[u8]) -> Vec<u8> {
        let mut bytes = b"MZ\0\0zimg".to_vec();
        bytes.extend(0xf200_u32.to_le_bytes());
        bytes.extend(1_234_567_u32.to_le_bytes());
        bytes.resize(ZBOOT_COMPRESSION, 0);
        bytes.extend(compression);
        bytes.resize(0x1000, 0);
        bytes
    }

    #[test]
    fn compressed_files_are_reported_with_what_unpacks_them() {
        for (start, found, tool) in [
            (&b"\x1f\x8b\x08\0\0"[..], "a gzip file", "gzip"),
            (b"\x28\xb5\x2f\xfd\x04", "a zstd file", "zstd"),
            (b"\xfd7zXZ\0\0", "an xz file", "xz"),
            (b"\x04\x22\x4d\x18d", "an lz4 file", "lz4"),
            (b"\x02\x21\x4c\x18d", "an lz4 file", "lz4"),
            (b"BZh91AY", "a bzip2 file", "bzip2"),
        ] {
            let expected = Foreign {
                found,
                unpack: Some(format!("{tool} -dc < /boot/it > kernel")),
            };
            assert_eq!(recognise(start), expected);
        }
    }

    #[test]
    fn a_unified_kernel_image_is_distinguished_from_other_efi_programs() {
        let kernel = program(0x8664, &[b".osrel\0\0", b".linux\0\0", b".initrd\0"]);
        assert_eq!(
            recognise(&kernel),
            Foreign {
                found: "a unified kernel image",
                unpack: Some("objcopy -O binary --only-section=.linux /boot/it kernel".to_owned()),
            }
        );
        for (bytes, found) in [
            (program(0x8664, &[b".text\0\0\0"]), "an EFI program"),
            (
                program(0xaa64, &[b".linux\0\0"]),
                "an EFI program for another kind of CPU",
            ),
            (b"MZ".to_vec(), "a DOS program"),
            (vec![0x4d, 0x5a, 0xff], "a DOS program"),
            ([b"MZ".to_vec(), vec![0xff; 100]].concat(), "a DOS program"),
            (kernel[..0x80 + PE_HEADER].to_vec(), "an EFI program"),
        ] {
            let expected = Foreign {
                found,
                unpack: None,
            };
            assert_eq!(recognise(&bytes), expected);
        }
    }

    #[test]
    fn a_compressed_efi_kernel_is_cut_out_and_unpacked() {
        for (compression, tool) in [
            (&b"gzip"[..], "gzip"),
            (b"zstd22", "zstd"),
            (b"xzkern", "xz"),
            (b"lzma", "xz"),
        ] {
            let expected = format!(
                "dd if=/boot/it iflag=skip_bytes,count_bytes bs=1M skip=61952 count=1234567 | \
                 {tool} -dc > kernel"
            );
            let found = recognise(&zboot(compression));
            assert_eq!(found.found, "a compressed EFI kernel");
            assert_eq!(found.unpack, Some(expected));
        }
        assert_eq!(recognise(&zboot(b"; reboot")).unpack, None);
    }

    #[test]
    fn a_path_stays_one_word() {
        for (path, expected) in [
            ("/boot/vmlinuz-6.1", "/boot/vmlinuz-6.1"),
            ("a b", "'a b'"),
            ("it's;x", "'it'\\''s;x'"),
            ("-x", "'-x'"),
        ] {
            assert_eq!(quoted(Path::new(path)), expected);
        }
    }

    proptest! {
        #[test]
        fn no_file_makes_this_panic(
            start in prop::sample::select(vec![&b"MZ"[..], b"MZ\0\0zimg", b""]),
            bytes in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            recognise(&[start, &bytes].concat());
        }
    }
}
