// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The contenders and their IOVAs.

use std::collections::BTreeMap;
use std::fs::File;
use std::hint::black_box;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use address::{Hpa, Iova};
use amdv1::walk::{self, Found};
use amdv1::{Attributes, PageTables, Table, TableAddress};
use iommufd_backend::TablePages;
use iommufd_backend::extent::Extent;
use software_memory::{Lookup, PinnedMap};
use vm_memory::GuestAddress;
use vm_memory::iommu::Iotlb;
use x86_64::structures::paging::mapper::{MapToError, Translate as _};
use x86_64::structures::paging::{
    FrameAllocator, Mapper, OffsetPageTable, Page, PageTable, PageTableFlags, PhysFrame, Size2MiB,
    Size4KiB,
};
use x86_64::{PhysAddr, VirtAddr};

use crate::layout::{ALIGNED, HIGH, LOW, MAPPED, keys, scattered};
use crate::spdk::SpdkMap;

/// Keys of which the tables' entries stay in the second-level cache.
const FEW: usize = 1 << 16;
/// Keys that reach all of the 32 MiB that 16 GiB of 4 KiB leaves take.
const MANY: usize = 1 << 20;

const RW: Attributes = Attributes::all();

type Measure = Box<dyn Fn(&[u64]) -> u64>;

pub struct Contender {
    pub name: &'static str,
    pub keys: Vec<u64>,
    /// Lookups that do not wait for each other.
    pub independent: Measure,
    /// Lookups each of which needs the result of the one before.
    pub dependent: Measure,
    /// Most that the ratio of throughputs, and of latencies, to the group's first may be.
    pub targets: [Option<f64>; 2],
}

/// A way to translate. A trait and no closure, because only a function can be marked to be inlined
/// in the measuring loop, as it would be in a data path.
trait Translate: Clone + 'static {
    fn translate(&mut self, iova: u64) -> Option<u64>;
}

/// The others, for which a call makes no difference.
#[derive(Clone)]
struct Called<F>(F);

impl<F: FnMut(u64) -> Option<u64> + Clone + 'static> Translate for Called<F> {
    fn translate(&mut self, iova: u64) -> Option<u64> {
        (self.0)(iova)
    }
}

impl Contender {
    fn new(name: &'static str, keys: Vec<u64>, translate: impl Translate) -> Self {
        let mut check = translate.clone();
        let mapped = |key: &u64| check.translate(*key).is_some();
        assert!(keys.iter().all(mapped), "{name}");
        let again = translate.clone();
        Self {
            name,
            keys,
            independent: Box::new(move |keys| independent(translate.clone(), keys)),
            dependent: Box::new(move |keys| dependent(again.clone(), keys)),
            targets: [None; 2],
        }
    }

    fn at_most(self, throughput: f64, latency: f64) -> Self {
        let targets = [Some(throughput), Some(latency)];
        Self { targets, ..self }
    }

    fn latency_at_most(self, latency: f64) -> Self {
        let targets = [None, Some(latency)];
        Self { targets, ..self }
    }
}

#[inline(never)]
fn independent(mut map: impl Translate, keys: &[u64]) -> u64 {
    let mut sum: u64 = 0;
    for key in keys {
        sum = sum.wrapping_add(map.translate(*key).unwrap_or_default());
    }
    sum
}

#[inline(never)]
fn dependent(mut map: impl Translate, keys: &[u64]) -> u64 {
    // The compiler cannot infer that it is 0.
    let zero = black_box(0);
    let mut last = 0;
    for key in keys {
        last = map.translate(key + (last & zero)).unwrap_or_default();
    }
    last
}

/// Groups of contenders; the first of each is what the others are compared with.
pub fn groups() -> Vec<(&'static str, Vec<Contender>)> {
    let low = keys(LOW, FEW);
    let large = vec![
        spdk_2mib(LOW),
        amdv1("AMDv1, 2 MiB", &low, &scattered(LOW, 21)).at_most(1.10, 1.05),
        amdv1("AMDv1, 1 GiB", &low, &scattered(LOW, 30)).latency_at_most(0.60),
        amdv1("AMDv1, 4 MiB in 2 items", &low, &scattered(LOW, 22)).latency_at_most(1.6),
        amdv1("AMDv1, 256 MiB in 128 items", &low, &scattered(LOW, 28)).latency_at_most(1.6),
        amdv1(
            "AMDv1, 4 GiB in 4 items",
            &keys(ALIGNED, FEW),
            &scattered(ALIGNED, 32),
        )
        .latency_at_most(1.6),
        amdv1(
            "AMDv1, 2 MiB, above 512 GiB",
            &keys(HIGH, FEW),
            &scattered(HIGH, 21),
        )
        .latency_at_most(1.5),
        amdv1_loop(&low),
        pinned_map(&low),
        run_table("a run's table, 512 bytes, 2 MiB", &low, 21),
        last_extent("last extent, of one", &low, &[(LOW, 1 << 40, MAPPED)]).latency_at_most(0.35),
        last_extent("last extent, of 8192", &low, &scattered(LOW, 21)),
        offset_page_table(&low),
    ];
    let many = keys(LOW, MANY);
    let small = vec![
        spdk_4kib(),
        amdv1_4kib().latency_at_most(1.05),
        run_table("a run's table, 512 bytes, 4 KiB", &many, 12),
        sorted_list("a sorted list, 512 bytes, 4 KiB", &many, 12),
    ];
    let random = keys(LOW, FEW);
    // Ratios the other way round: how many times longer the others take, at least.
    let trees = vec![
        amdv1("AMDv1, 2 MiB", &random, &scattered(LOW, 21)),
        btree(&random),
        sorted_list("a sorted list, 512 bytes", &random, 21).at_least(8.0),
        range_map(&random),
        nodit_map(&random),
        iotlb(&random),
        ioctl(&random),
        pagemap(&random),
    ];
    vec![
        ("large pages", large),
        ("4 KiB pages", small),
        ("others", trees),
    ]
}

fn spdk_2mib(base: u64) -> Contender {
    let mut map = SpdkMap::new();
    for (iova, hpa, _) in scattered(base, 21) {
        map.insert_2mib(iova, hpa);
    }
    Contender::new("SPDK's shape, 2 MiB", keys(base, FEW), Spdk2Mib(map.leak()))
}

#[derive(Clone, Copy)]
struct Spdk2Mib(&'static SpdkMap);

impl Translate for Spdk2Mib {
    #[inline(always)]
    fn translate(&mut self, iova: u64) -> Option<u64> {
        self.0.get_2mib(iova)
    }
}

fn spdk_4kib() -> Contender {
    let mut map = SpdkMap::new();
    for (iova, hpa, _) in scattered(LOW, 12) {
        map.insert_4kib(iova, hpa);
    }
    Contender::new("SPDK's shape, 4 KiB", keys(LOW, MANY), Spdk4Kib(map.leak()))
}

#[derive(Clone, Copy)]
struct Spdk4Kib(&'static SpdkMap);

impl Translate for Spdk4Kib {
    #[inline(always)]
    fn translate(&mut self, iova: u64) -> Option<u64> {
        self.0.get_4kib(iova)
    }
}

fn table(pages: &[(u64, u64, u64)]) -> &'static Table<amdv1::HeapTables> {
    let mut table = Table::default();
    for (iova, hpa, len) in pages {
        table.map(Iova(*iova), Hpa(*hpa), *len, RW).unwrap();
    }
    Box::leak(Box::new(table))
}

fn amdv1(name: &'static str, keys: &[u64], pages: &[(u64, u64, u64)]) -> Contender {
    Contender::new(name, keys.to_vec(), Amdv1(table(pages)))
}

#[derive(Clone, Copy)]
struct Amdv1(&'static Table<amdv1::HeapTables>);

impl Translate for Amdv1 {
    #[inline(always)]
    fn translate(&mut self, iova: u64) -> Option<u64> {
        self.0.translate(Iova(iova)).map(|hpa| hpa.0)
    }
}

fn amdv1_4kib() -> Contender {
    amdv1("AMDv1, 4 KiB", &keys(LOW, MANY), &scattered(LOW, 12))
}

/// The walk of tables that are not trusted.
fn amdv1_loop(keys: &[u64]) -> Contender {
    let table = table(&scattered(LOW, 21));
    let walk = Called(
        move |iova| match walk::walk(table, table.root(), Iova(iova)) {
            Ok(Found::Leaf(leaf)) => Some(leaf.hpa_of(Iova(iova)).0),
            _ => None,
        },
    );
    Contender::new("AMDv1, 2 MiB, careful walk", keys.to_vec(), walk)
}

fn pinned(pages: &[(u64, u64, u64)]) -> &'static PinnedMap {
    let extents: Vec<_> = pages
        .iter()
        .map(|(iova, hpa, len)| Extent::new(Iova(*iova), Hpa(*hpa), *len).unwrap())
        .collect();
    let mut map = PinnedMap::new();
    map.insert(&extents).unwrap();
    Box::leak(Box::new(map))
}

/// The software backend's bus: 512 bytes from an address on.
fn pinned_map(keys: &[u64]) -> Contender {
    let map = pinned(&scattered(LOW, 21));
    Contender::new(
        "software bus's translate, 2 MiB",
        keys.to_vec(),
        Pinned(map),
    )
}

#[derive(Clone, Copy)]
struct Pinned(&'static PinnedMap);

impl Translate for Pinned {
    #[inline(always)]
    fn translate(&mut self, iova: u64) -> Option<u64> {
        let run = self.0.translate(Iova(iova & !511), 512).ok()?;
        Some(run.hpa.0 + run.len)
    }
}

/// The table of a run, in pages that a guest may be shown, asked as mediation asks: for 512 bytes
/// from an address on.
fn run_table(name: &'static str, keys: &[u64], lg2: u32) -> Contender {
    const PAGES: usize = 16 << 10;
    let pages = TablePages::new(PAGES, (PAGES as u64) << 12, 0).unwrap();
    let memory = PageTables::new(TableAddress::new(0).unwrap(), pages).unwrap();
    let mut table = Table::new(memory).unwrap();
    for (iova, hpa, len) in scattered(LOW, lg2) {
        table.map(Iova(iova), Hpa(hpa), len, RW).unwrap();
    }
    let table: &'static _ = Box::leak(Box::new(table));
    Contender::new(name, keys.to_vec(), RunTable(table))
}

#[derive(Clone, Copy)]
struct RunTable(&'static Table<PageTables<TablePages>>);

impl Translate for RunTable {
    #[inline(always)]
    fn translate(&mut self, iova: u64) -> Option<u64> {
        let run = self.0.run(Iova(iova & !511), 512)?;
        Some(run.hpa.0 + run.len)
    }
}

/// Pieces in the order of their addresses, searched by halves; asked in the same way.
fn sorted_list(name: &'static str, keys: &[u64], lg2: u32) -> Contender {
    let mut pieces = scattered(LOW, lg2);
    pieces.sort_unstable();
    let pieces: Rc<[_]> = pieces.into();
    Contender::new(
        name,
        keys.to_vec(),
        Called(move |iova| {
            let iova = iova & !511;
            let next = pieces.partition_point(|(start, ..)| *start <= iova);
            let (start, hpa, len) = pieces.get(next.checked_sub(1)?)?;
            let left = len.checked_sub(iova - start).filter(|left| *left > 0)?;
            Some(hpa + (iova - start) + left.min(512))
        }),
    )
}

fn last_extent(name: &'static str, keys: &[u64], pages: &[(u64, u64, u64)]) -> Contender {
    Contender::new(name, keys.to_vec(), LastExtent(pinned(pages).lookup()))
}

#[derive(Clone)]
struct LastExtent(Lookup<'static>);

impl Translate for LastExtent {
    #[inline(always)]
    fn translate(&mut self, iova: u64) -> Option<u64> {
        self.0.translate(Iova(iova)).map(|hpa| hpa.0)
    }
}

struct Frames;

// SAFETY: every frame is a separate page that is never freed; physical addresses are those of this
// process, as given to `OffsetPageTable`.
unsafe impl FrameAllocator<Size4KiB> for Frames {
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        let page: *const PageTable = Box::leak(Box::new(PageTable::new()));
        PhysFrame::from_start_address(PhysAddr::new(page.addr() as u64)).ok()
    }
}

fn offset_page_table(keys: &[u64]) -> Contender {
    let top = Box::leak(Box::new(PageTable::new()));
    // SAFETY: all frames are pages of this process, at offset 0.
    let mut tables = unsafe { OffsetPageTable::new(top, VirtAddr::new(0)) };
    let flags = PageTableFlags::PRESENT | PageTableFlags::WRITABLE;
    for (iova, hpa, _) in scattered(LOW, 21) {
        let page = Page::<Size2MiB>::from_start_address(VirtAddr::new(iova)).unwrap();
        let frame = PhysFrame::from_start_address(PhysAddr::new(hpa)).unwrap();
        // SAFETY: no processor uses these tables.
        let mapped = unsafe { tables.map_to(page, frame, flags, &mut Frames) };
        mapped
            .map_err(|_: MapToError<Size2MiB>| ())
            .unwrap()
            .ignore();
    }
    let tables = OffsetTables(Box::leak(Box::new(tables)));
    Contender::new("x86_64's OffsetPageTable, 2 MiB", keys.to_vec(), tables)
}

#[derive(Clone, Copy)]
struct OffsetTables(&'static OffsetPageTable<'static>);

impl Translate for OffsetTables {
    #[inline(always)]
    fn translate(&mut self, iova: u64) -> Option<u64> {
        let hpa = self.0.translate_addr(VirtAddr::new(iova))?;
        Some(hpa.as_u64())
    }
}

fn btree(keys: &[u64]) -> Contender {
    let pages = scattered(LOW, 21);
    let map: BTreeMap<u64, (u64, u64)> = pages
        .into_iter()
        .map(|(iova, hpa, len)| (iova, (hpa, len)))
        .collect();
    let map = Rc::new(map);
    Contender::new(
        "BTreeMap",
        keys.to_vec(),
        Called(move |iova| {
            let (start, (hpa, len)) = map.range(..=iova).next_back()?;
            (iova - start < *len).then(|| hpa + (iova - start))
        }),
    )
    .at_least(8.0)
}

fn range_map(keys: &[u64]) -> Contender {
    let pages = scattered(LOW, 21);
    let map: rangemap::RangeMap<u64, u64> = pages
        .into_iter()
        .map(|(iova, hpa, len)| (iova..iova + len, hpa.wrapping_sub(iova)))
        .collect();
    let map = Rc::new(map);
    Contender::new(
        "rangemap",
        keys.to_vec(),
        Called(move |iova| map.get(&iova).map(|delta| iova.wrapping_add(*delta))),
    )
    .at_least(8.0)
}

fn nodit_map(keys: &[u64]) -> Contender {
    use nodit::interval::ie;
    let mut map = nodit::NoditMap::new();
    for (iova, hpa, len) in scattered(LOW, 21) {
        map.insert_strict(ie(iova, iova + len), hpa.wrapping_sub(iova))
            .unwrap();
    }
    let map = Rc::new(map);
    Contender::new(
        "nodit",
        keys.to_vec(),
        Called(move |iova| {
            map.get_at_point(&iova)
                .map(|delta| iova.wrapping_add(*delta))
        }),
    )
    .at_least(8.0)
}

fn iotlb(keys: &[u64]) -> Contender {
    use vm_memory::Permissions;
    let mut iotlb = Iotlb::new();
    for (iova, hpa, len) in scattered(LOW, 21) {
        let (iova, hpa) = (GuestAddress(iova), GuestAddress(hpa));
        let len = usize::try_from(len).unwrap();
        iotlb
            .set_mapping(iova, hpa, len, Permissions::ReadWrite)
            .unwrap();
    }
    let iotlb: &'static Iotlb = Box::leak(Box::new(iotlb));
    Contender::new(
        "vm-memory's Iotlb",
        keys.to_vec(),
        Called(move |iova| {
            let found = Iotlb::lookup(iotlb, GuestAddress(iova), 1, Permissions::Read).ok()?;
            found.last().map(|range| range.base.0)
        }),
    )
    .at_least(25.0)
}

/// A bare system call of the kind: it fails at once.
fn ioctl(keys: &[u64]) -> Contender {
    let null = Rc::new(File::open("/dev/null").unwrap());
    Contender::new(
        "a failing ioctl",
        keys.to_vec(),
        Called(move |iova| {
            // SAFETY: /dev/null has no such request; nothing is passed by address.
            let result = unsafe { libc::ioctl(null.as_raw_fd(), 0xffff, 0) };
            u64::try_from(result + 1).ok().map(|result| result + iova)
        }),
    )
    .at_least(10.0)
}

/// One page of memory looked up in `/proc/self/pagemap`.
fn pagemap(keys: &[u64]) -> Contender {
    let pagemap = Rc::new(File::open("/proc/self/pagemap").unwrap());
    let memory: &'static [u8] = vec![1; 64 << 20].leak();
    Contender::new(
        "a pread of pagemap",
        keys.to_vec(),
        Called(move |iova| {
            let page = (memory.as_ptr().addr() as u64 + iova % (64 << 20)) / 4096;
            let mut entry = [0; 8];
            pagemap.read_exact_at(&mut entry, page * 8).ok()?;
            Some(u64::from_le_bytes(entry))
        }),
    )
}

impl Contender {
    /// For those that are compared with the table: the ratio must be at least this.
    fn at_least(self, ratio: f64) -> Self {
        self.latency_at_most(-ratio)
    }
}
