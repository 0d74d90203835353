// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The CPU architectures that a test machine can have, and what each is called by whom.

/// The CPU architecture of a test machine and of the guests on it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Arch {
    /// A PC.
    #[default]
    #[value(name = "x86_64")]
    X86_64,
    /// QEMU's machine `virt`, with a GICv3 and without an IOMMU.
    #[value(name = "aarch64")]
    Aarch64,
}

impl Arch {
    /// Its name on the command line and in the cache.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// Debian's name.
    #[must_use]
    pub fn of_debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    /// The emulator.
    #[must_use]
    pub fn qemu(self) -> &'static str {
        match self {
            Self::X86_64 => "qemu-system-x86_64",
            Self::Aarch64 => "qemu-system-aarch64",
        }
    }

    /// The package that the emulator is in.
    #[must_use]
    pub fn qemu_package(self) -> &'static str {
        match self {
            Self::X86_64 => "qemu-system-x86",
            Self::Aarch64 => "qemu-system-arm",
        }
    }

    /// What builds programs for it, where this machine's own compiler does not: the prefix of its tools, and packages.
    #[must_use]
    pub fn cross_compiler(self) -> Option<(&'static str, &'static [&'static str])> {
        match self {
            Self::X86_64 => None,
            Self::Aarch64 => Some((
                "aarch64-linux-gnu-",
                &["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"],
            )),
        }
    }

    /// The target of the kernel's makefile, and the file that it makes.
    #[must_use]
    pub fn kernel_file(self) -> (&'static str, &'static str) {
        match self {
            Self::X86_64 => ("bzImage", "arch/x86/boot/bzImage"),
            Self::Aarch64 => ("Image", "arch/arm64/boot/Image"),
        }
    }

    /// What the kernel's makefile calls it, where that is not this machine's.
    #[must_use]
    pub fn of_kernel(self) -> Option<&'static str> {
        match self {
            Self::X86_64 => None,
            Self::Aarch64 => Some("arm64"),
        }
    }
}
