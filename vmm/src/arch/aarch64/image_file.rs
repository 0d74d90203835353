// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Is a file a kernel of aarch64? An `Image`, as it is or as a gzip file, is.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use rustix::fs::MemfdFlags;

use super::image::{Header, LEN};
use crate::boot::foreign::Foreign;
use crate::boot::kernel::KernelError;
use crate::boot::release::Release;
use crate::config::input_file;

/// What a gzip file begins with.
const GZIP: &[u8] = b"\x1f\x8b";
/// More bytes than a kernel unpacks to.
const MAX_UNPACKED: u64 = 512 << 20;

/// An `Image` that has passed all checks which do not depend on where it is loaded.
#[derive(Debug)]
pub struct ImageFile {
    /// Where it was.
    pub path: PathBuf,
    /// The image, unpacked.
    pub file: File,
    /// Its bytes.
    pub len: u64,
    /// What they begin with.
    pub header: Header,
    /// The release of Linux, if it is one.
    pub release: Option<Release>,
}

impl ImageFile {
    /// Opens and checks the kernel at `path`.
    ///
    /// # Errors
    /// [`KernelError`]
    pub fn open(path: &Path) -> Result<Self, KernelError> {
        let read_error = |source| KernelError::Read {
            path: path.to_owned(),
            source,
        };
        let (packed, _) = input_file::open(path).map_err(read_error)?;
        let unpacked = match start(&packed).map_err(read_error)? {
            Some(start) if start.starts_with(GZIP) => Some(unpack(&packed).map_err(read_error)?),
            _ => None,
        };
        let file = unpacked.as_ref().unwrap_or(&packed);
        let Some(header) = start(file)
            .map_err(read_error)?
            .as_ref()
            .and_then(Header::parse)
        else {
            let Foreign { found, unpack } = Foreign::recognise(path, file).map_err(read_error)?;
            return Err(KernelError::NotKernel {
                path: path.to_owned(),
                found,
                unpack: unpack.filter(|_| unpacked.is_none()),
            });
        };
        header.check().map_err(|reason| KernelError::Unsupported {
            path: path.to_owned(),
            reason: reason.to_owned(),
        })?;
        let file = unpacked.unwrap_or(packed);
        let len = file.metadata().map_err(read_error)?.len();
        let release = Release::find(&file, &[0..len]).map_err(read_error)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            len,
            header,
            release,
        })
    }
}

/// The first bytes of `file`; `None` if it has fewer.
fn start(file: &File) -> io::Result<Option<[u8; LEN]>> {
    let mut start = [0; LEN];
    match file.read_exact_at(&mut start, 0) {
        Ok(()) => Ok(Some(start)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// What the gzip file `packed` holds. One that is no kernel, or too large for one, is not unpacked in whole.
fn unpack(packed: &File) -> io::Result<File> {
    let mut reader = packed;
    reader.seek(SeekFrom::Start(0))?;
    unpack_at_most(
        &mut MultiGzDecoder::new(io::BufReader::new(reader)),
        MAX_UNPACKED,
    )
}

/// What `source` gives, of which there must be no more than `most` bytes.
fn unpack_at_most(source: &mut impl Read, most: u64) -> io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create("kernel", MemfdFlags::CLOEXEC)?);
    let len = io::copy(&mut source.take(most + 1), &mut file)?;
    if len > most {
        let text = format!("it unpacks to more than {most} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    const MIB: usize = 1 << 20;

    /// An image of Linux 6.1.
    fn image() -> Vec<u8> {
        let mut image = vec![0; MIB];
        image[..2].copy_from_slice(b"MZ");
        image[16..24].copy_from_slice(&(2 * MIB as u64).to_le_bytes());
        image[24] = 0xa;
        image[0x38..0x3c].copy_from_slice(b"ARM\x64");
        image[0x3c] = 0x40;
        let banner = b"Linux version 6.1.0-56-arm64 (debian-kernel@lists.debian.org)";
        image[0x1000..0x1000 + banner.len()].copy_from_slice(banner);
        image
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn open(bytes: &[u8]) -> Result<ImageFile, KernelError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        ImageFile::open(file.path())
    }

    fn refusal(bytes: &[u8]) -> String {
        open(bytes).unwrap_err().to_string()
    }

    #[test]
    fn an_image_is_the_same_packed_and_as_it_is() {
        let plain = image();
        for bytes in [plain.clone(), gzip(&plain)] {
            let found = open(&bytes).unwrap();
            assert_eq!(found.len, MIB as u64);
            assert_eq!(found.header.image_size, 2 * MIB as u64);
            let release = Release { major: 6, minor: 1 };
            assert_eq!(found.release, Some(release));
            let mut read = Vec::new();
            let mut file = &found.file;
            file.seek(SeekFrom::Start(0)).unwrap();
            file.read_to_end(&mut read).unwrap();
            assert_eq!(read, plain);
        }
    }

    #[test]
    fn what_is_no_kernel_is_named() {
        let noise: Vec<u8> = (0..4096_u32)
            .map(|number| number.wrapping_mul(0x9e37_79b9).to_le_bytes()[3])
            .collect();
        let other = refusal(&noise);
        assert!(other.contains("unknown format"), "{other}");
        // Unpacking it once more makes no kernel of it.
        let packed = refusal(&gzip(&noise));
        assert!(
            packed.contains("unknown format") && !packed.contains("gzip"),
            "{packed}"
        );
        let twice = refusal(&gzip(&gzip(&image())));
        assert!(twice.contains("a gzip file"), "{twice}");
        for short in [&b""[..], b"MZ", GZIP] {
            assert!(open(short).is_err(), "{short:?}");
        }
    }

    #[test]
    fn an_efi_kernel_that_unpacks_itself_is_refused_with_the_command() {
        let mut zboot = vec![0; 4096];
        zboot[..2].copy_from_slice(b"MZ");
        zboot[4..8].copy_from_slice(b"zimg");
        zboot[8..12].copy_from_slice(&0x400_u32.to_le_bytes());
        zboot[12..16].copy_from_slice(&0x800_u32.to_le_bytes());
        zboot[0x18..0x1c].copy_from_slice(b"gzip");
        let Err(KernelError::NotKernel { found, unpack, .. }) = open(&zboot) else {
            panic!("it was taken");
        };
        assert_eq!(found, "a compressed EFI kernel");
        assert!(unpack.is_some_and(|command| command.contains("gzip -dc")));
    }

    #[test]
    fn a_kernel_that_cannot_be_used_is_refused_with_the_reason() {
        let mut big_endian = image();
        big_endian[24] |= 1;
        let reason = refusal(&gzip(&big_endian));
        assert!(reason.contains("big-endian"), "{reason}");
    }

    #[test]
    fn a_damaged_gzip_file_is_an_error() {
        let mut packed = gzip(&image());
        packed.truncate(packed.len() / 2);
        assert!(matches!(open(&packed), Err(KernelError::Read { .. })));
    }

    #[test]
    fn what_unpacks_to_more_than_a_kernel_has_is_not_kept() {
        let error = unpack_at_most(&mut io::repeat(0), 1000).unwrap_err();
        assert!(
            error.to_string().contains("more than 1000 bytes"),
            "{error}"
        );
        assert!(unpack_at_most(&mut io::repeat(0).take(1000), 1000).is_ok());
    }
}
