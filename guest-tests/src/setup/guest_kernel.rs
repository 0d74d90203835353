//! The stock Debian kernel that guests boot: unpacked, never installed.

use std::fs;
use std::path::{Path, PathBuf};

use super::apt::Apt;
use super::not_set_up;
use super::selection::Selection;
use crate::error::{AtPath, Error, Result};
use crate::paths;
use crate::shell::{self, progress};

/// A stock kernel with its modules.
#[derive(Debug, Clone)]
pub struct GuestKernel {
    folder: PathBuf,
    release: String,
}

impl GuestKernel {
    /// The kernel as Debian ships it, a compressed bzImage.
    #[must_use]
    pub fn bzimage(&self) -> PathBuf {
        self.folder
            .join("boot")
            .join(format!("vmlinuz-{}", self.release))
    }

    /// The kernel within it, an ELF file: saves half of each boot.
    #[must_use]
    pub fn vmlinux(&self) -> PathBuf {
        self.folder.join("boot").join("vmlinux")
    }

    /// The folder of its modules, with `modules.dep`.
    #[must_use]
    pub fn modules(&self) -> PathBuf {
        self.folder.join("lib/modules").join(&self.release)
    }

    /// What `uname -r` says on it.
    #[must_use]
    pub fn release(&self) -> &str {
        &self.release
    }

    fn of(selection: &Selection) -> Result<Self> {
        let package = &selection.guest_kernel;
        let release = package
            .name
            .strip_prefix("linux-image-")
            .unwrap_or(&package.name);
        let folder = format!("{}_{}", package.name, package.version);
        Ok(Self {
            folder: paths::cache()?.join("guest").join(folder),
            release: release.into(),
        })
    }
}

/// The guest kernel in the cache.
///
/// # Errors
/// [`Error::Missing`] if the testbed is not set up.
pub fn installed() -> Result<GuestKernel> {
    let missing = || not_set_up("the guest kernel");
    let kernel = GuestKernel::of(&Selection::load()?.ok_or_else(missing)?)?;
    if kernel.folder.exists() {
        Ok(kernel)
    } else {
        Err(missing())
    }
}

/// Downloads and unpacks the guest kernel if the cache has none.
pub fn install(selection: &Selection) -> Result<()> {
    let kernel = GuestKernel::of(selection)?;
    if kernel.folder.exists() {
        return Ok(());
    }
    let package = &selection.guest_kernel;
    let apt = Apt::of_machine()?;
    paths::publish_folder(&kernel.folder, |partial| {
        apt.unpack(&package.name, &package.version, partial)?;
        let unpacked = GuestKernel {
            folder: partial.into(),
            release: kernel.release.clone(),
        };
        let usr_modules = partial.join("usr/lib/modules");
        if usr_modules.exists() {
            paths::create_folder(&partial.join("lib"))?;
            fs::rename(&usr_modules, partial.join("lib/modules")).at("move", &usr_modules)?;
        }
        progress("indexing the guest kernel's modules");
        let base = partial.to_string_lossy();
        shell::run(&mut shell::command(
            "/sbin/depmod",
            ["-b", base.as_ref(), &kernel.release],
        ))?;
        extract_vmlinux(&unpacked.bzimage(), &unpacked.vmlinux())
    })
}

/// Unpacks the ELF file inside a bzImage.
///
/// # Errors
/// [`Error::Malformed`] if `bzimage` is none, or what decompressing it returns.
pub fn extract_vmlinux(bzimage: &Path, vmlinux: &Path) -> Result<()> {
    let image = fs::read(bzimage).at("read", bzimage)?;
    let malformed = |reason: &str| Error::Malformed {
        path: bzimage.into(),
        reason: reason.into(),
    };
    let payload = payload(&image).ok_or_else(|| malformed("not a bzImage with a payload"))?;
    let program = match payload {
        [0xfd, b'7', b'z', b'X', b'Z', ..] => "xz",
        [0x1f, 0x8b, ..] => "gzip",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "zstd",
        _ => return Err(malformed("payload neither xz, gzip nor zstd")),
    };
    let packed = vmlinux.with_extension("packed");
    fs::write(&packed, payload).at("write", &packed)?;
    let words = [
        program,
        "-dc",
        "<",
        &path_word(&packed),
        ">",
        &path_word(vmlinux),
    ]
    .join(" ");
    let result = shell::run(&mut shell::command("sh", ["-c", &words]));
    fs::remove_file(&packed).at("remove", &packed)?;
    result.map(drop)
}

/// The compressed kernel in a bzImage, without the four bytes of its length that follow it
/// (Linux Documentation/arch/x86/boot.rst: setup_sects, payload_offset, payload_length).
fn payload(image: &[u8]) -> Option<&[u8]> {
    let word = |at: usize| Some(u32::from_le_bytes(image.get(at..at + 4)?.try_into().ok()?));
    if image.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let setup_sects = match *image.get(0x1f1)? {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let start = (setup_sects + 1) * 512 + usize::try_from(word(0x248)?).ok()?;
    let length = usize::try_from(word(0x24c)?).ok()?.checked_sub(4)?;
    image.get(start..start.checked_add(length)?)
}

fn path_word(path: &Path) -> String {
    shell::quote(&path.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(payload_offset: u32, payload_length: u32) -> Vec<u8> {
        let mut image = vec![0; 2048];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x248..0x24c].copy_from_slice(&payload_offset.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&payload_length.to_le_bytes());
        image[1024 + 16] = 7;
        image
    }

    #[test]
    fn payload_lies_behind_the_setup_sectors() {
        assert_eq!(payload(&image(16, 12)).unwrap(), [7, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn lying_headers_have_no_payload() {
        assert_eq!(payload(&image(16, 3)), None);
        assert_eq!(payload(&image(16, 5000)), None);
        assert_eq!(payload(&image(u32::MAX, u32::MAX)), None);
        assert_eq!(payload(&[0; 100]), None);
        assert_eq!(payload(&[0; 2048]), None);
    }
}
