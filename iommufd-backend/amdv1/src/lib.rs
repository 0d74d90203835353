//! AMDv1 I/O page tables.
#![no_std]
