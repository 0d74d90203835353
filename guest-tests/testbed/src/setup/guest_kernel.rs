// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The stock Debian kernel that guests boot: unpacked, never installed.

use std::fs;
use std::path::{Path, PathBuf};

use super::apt::Apt;
use super::arch::Arch;
use super::not_set_up;
use super::selection::{Package, Selection};
use crate::error::{AtPath, Error, Result};
use crate::paths;
use crate::shell::{self, progress};

/// A stock kernel with its modules.
#[derive(Debug, Clone)]
pub struct GuestKernel {
    arch: Arch,
    folder: PathBuf,
    release: String,
}

impl GuestKernel {
    /// What boots soonest: a PC's kernel is unpacked already, another's comes so.
    #[must_use]
    pub fn unpacked(&self) -> PathBuf {
        match self.arch {
            Arch::X86_64 => self.vmlinux(),
            Arch::Aarch64 => self.packaged(),
        }
    }

    /// The kernel as Debian ships it: a compressed bzImage for a PC, a plain Image for aarch64.
    #[must_use]
    pub fn packaged(&self) -> PathBuf {
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

    /// What it runs on.
    #[must_use]
    pub fn arch(&self) -> Arch {
        self.arch
    }

    /// Its `uname -r`.
    #[must_use]
    pub fn release(&self) -> &str {
        &self.release
    }

    fn of(arch: Arch, package: &Package) -> Result<Self> {
        let release = package
            .name
            .strip_prefix("linux-image-")
            .unwrap_or(&package.name);
        let folder = format!("{}_{}", package.name, package.version);
        Ok(Self {
            arch,
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
    of_arch(Arch::X86_64)
}

/// The guest kernel for machines of `arch`.
///
/// # Errors
/// [`Error::Missing`] if the testbed is not set up.
pub fn of_arch(arch: Arch) -> Result<GuestKernel> {
    find(arch, "the guest kernel", |selection| {
        Some(&selection.guest_kernel)
    })
}

/// The guest kernel that is older than Linux 5.13.
///
/// # Errors
/// [`Error::Missing`] if the testbed is not set up.
pub fn old_installed() -> Result<GuestKernel> {
    old_of_arch(Arch::X86_64)
}

/// The same for machines of `arch`.
///
/// # Errors
/// [`Error::Missing`] if the testbed is not set up.
pub fn old_of_arch(arch: Arch) -> Result<GuestKernel> {
    find(arch, "Debian 11's kernel", |selection| {
        Some(&selection.old_guest_kernel)
    })
}

/// Debian 13's kernel.
///
/// # Errors
/// [`Error::Missing`] if the testbed is not set up.
pub fn new_installed() -> Result<GuestKernel> {
    find(Arch::X86_64, "Debian 13's kernel", |selection| {
        selection.new_guest_kernel.as_ref()
    })
}

fn find(arch: Arch, what: &str, choose: fn(&Selection) -> Option<&Package>) -> Result<GuestKernel> {
    let missing = || not_set_up(arch, what);
    let selection = Selection::load(arch)?.ok_or_else(missing)?;
    let kernel = GuestKernel::of(arch, choose(&selection).ok_or_else(missing)?)?;
    if kernel.folder.exists() {
        Ok(kernel)
    } else {
        Err(missing())
    }
}

/// Downloads and unpacks the guest kernels that the cache lacks.
pub fn install(selection: &Selection) -> Result<()> {
    let arch = selection.arch;
    install_from(arch, Apt::of_machine, &selection.guest_kernel)?;
    install_from(arch, Apt::of_debian_11, &selection.old_guest_kernel)?;
    match &selection.new_guest_kernel {
        Some(package) => install_from(arch, Apt::of_debian_13, package),
        None => Ok(()),
    }
}

fn install_from(arch: Arch, suites: fn(Arch) -> Result<Apt>, package: &Package) -> Result<()> {
    let kernel = GuestKernel::of(arch, package)?;
    if kernel.folder.exists() {
        return Ok(());
    }
    let apt = suites(arch)?;
    paths::publish_folder(&kernel.folder, |partial| {
        apt.unpack(&package.name, &package.version, partial)?;
        let unpacked = GuestKernel {
            arch,
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
        // What arm64's package has is not packed: boot it as it is.
        match arch {
            Arch::X86_64 => extract_vmlinux(&unpacked.packaged(), &unpacked.vmlinux()),
            Arch::Aarch64 => Ok(()),
        }
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

/// Writes a copy of vmlinux that nothing identifies as Linux any more: its notes in that name have
/// another. What is left to enter it by is PVH.
///
/// # Errors
/// [`Error::Malformed`] if `vmlinux` has no such notes, or a file operation's error.
pub fn write_pvh_only(vmlinux: &Path, copy: &Path) -> Result<()> {
    let mut image = fs::read(vmlinux).at("read", vmlinux)?;
    let renamed = rename_notes(&mut image).unwrap_or(0);
    if renamed == 0 {
        return Err(Error::Malformed {
            path: vmlinux.into(),
            reason: "no notes of Linux's".into(),
        });
    }
    fs::write(copy, image).at("write", copy)
}

/// Renames the notes of Linux's in a 64-bit ELF file and returns how many there were.
fn rename_notes(image: &mut [u8]) -> Option<usize> {
    const PT_NOTE: u64 = 4;
    const OWNER: &[u8] = b"Linux\0\0\0";
    let number = |image: &[u8], at: usize, width: usize| {
        let bytes = image.get(at..at.checked_add(width)?)?.iter().rev();
        Some(bytes.fold(0_u64, |number, byte| number << 8 | u64::from(*byte)))
    };
    let place = |image: &[u8], at: usize| usize::try_from(number(image, at, 8)?).ok();
    let headers = place(image, 0x20)?;
    let mut renamed = 0;
    for index in 0..usize::try_from(number(image, 0x38, 2)?).ok()? {
        let header = headers.checked_add(index * 56)?;
        if number(image, header, 4)? != PT_NOTE {
            continue;
        }
        let start = place(image, header + 8)?;
        let end = start.checked_add(place(image, header + 32)?)?;
        let notes = image.get_mut(start..end)?;
        for at in 0..notes.len().saturating_sub(OWNER.len()) {
            if notes[at..].starts_with(OWNER) {
                notes[at..at + 5].copy_from_slice(b"Other");
                renamed += 1;
            }
        }
    }
    Some(renamed)
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
    fn only_notes_are_renamed() {
        let mut image = vec![0; 0x200];
        image[0x20] = 0x40;
        image[0x38] = 2;
        image[0x40] = 1;
        image[0x78] = 4;
        image[0x80..0x82].copy_from_slice(&[0, 1]);
        image[0x98] = 0x40;
        for at in [0x104, 0x180] {
            image[at..at + 5].copy_from_slice(b"Linux");
        }
        assert_eq!(rename_notes(&mut image), Some(1));
        assert_eq!(&image[0x104..0x109], b"Other");
        assert_eq!(&image[0x180..0x185], b"Linux");
        assert_eq!(rename_notes(&mut image), Some(0));
        assert_eq!(rename_notes(&mut [0; 16]), None);
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
