// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Checks memory: the address map, hugepages, and threats to pinned pages.

use iommufd_backend::COPY_IOMEM;
use iommufd_backend::hugepages::{HugepageSize, Pool};

use crate::checks::id::Id;
use crate::checks::line::Line;
use crate::checks::rebuild::rebuild;
use crate::checks::units::size;
use crate::facts::memory::{Balloon, Meminfo, balloon, movable_memory};
use crate::sys_root::SysRoot;
use crate::wanted::WantedMemory;

/// [`Id::AddressMap`]
pub(crate) fn check_address_map(root: &SysRoot) -> Line {
    let id = Id::AddressMap;
    match root.iomem() {
        Ok(map) => {
            let ram = map.system_ram().count();
            Line::ok(
                id,
                format!("/proc/iomem, or its copy, lists {ram} ranges of memory"),
            )
        }
        Err(iommufd_backend::Error::AddressesHidden { .. }) => Line::fail(
            id,
            "/proc/iomem hides addresses from this caller (CAP_SYS_ADMIN), and they are required \
             to place guest memory",
            format!(
                "run as root: sudo pinvisor ...; or, as root outside a container: {COPY_IOMEM}"
            ),
        ),
        Err(error) => Line::fail(
            id,
            format!("{error}, and the host's address map is required to place guest memory"),
            "ls -l /proc/iomem",
        ),
    }
}

/// [`Id::Hugepages`]: a line for the pages that the guest's memory is to be made of, or for each
/// size.
pub(crate) fn check_hugepages(
    root: &SysRoot,
    memory: Option<&WantedMemory>,
    are_needed: bool,
) -> Vec<Line> {
    let id = Id::Hugepages;
    if !are_needed {
        return vec![Line::ok(
            id,
            "Not needed: only identity-mapped guest memory (dma=identity) uses them",
        )];
    }
    if !root.exists("sys/kernel/mm/hugepages") {
        return vec![Line::fail(
            id,
            "The host kernel has no hugepages (CONFIG_HUGETLBFS), which guest memory requires",
            rebuild("-e HUGETLBFS"),
        )];
    }
    if let Some(memory) = memory {
        let size = memory.hugepage_size.unwrap_or(HugepageSize::Mib2);
        return vec![check_pool(root, size, Some(memory.bytes))];
    }
    let offered = HugepageSize::ALL
        .into_iter()
        .filter(|size| root.exists(&format!("sys/kernel/mm/hugepages/{}", size.pool_name())));
    let lines: Vec<Line> = offered.map(|size| check_pool(root, size, None)).collect();
    let any = |line: &Line| line.hint.is_none();
    if lines.iter().any(any) {
        return lines.into_iter().filter(any).collect();
    }
    lines.into_iter().take(1).collect()
}

fn check_pool(root: &SysRoot, page: HugepageSize, need: Option<u64>) -> Line {
    let id = Id::Hugepages;
    let nodes = Pool::read_nodes(&root.path("sys"), page);
    let (pool, nodes) = match (root.hugepages(page), nodes) {
        (Ok(pool), Ok(nodes)) => (pool, nodes),
        (Err(error), _) | (_, Err(error)) => {
            return Line::fail(id, error.to_string(), "ls -R /sys/kernel/mm/hugepages");
        }
    };
    let per_node = match nodes.as_slice() {
        [] | [_] => String::new(),
        nodes => {
            let free: Vec<_> = nodes
                .iter()
                .map(|(node, pool)| format!("node{node} {}", pool.free))
                .collect();
            format!(" (free: {})", free.join(", "))
        }
    };
    let have = format!(
        "{} in the pool, {} free, {} of those reserved by others{per_node}",
        pool.total, pool.free, pool.reserved
    );
    let file = format!("/sys/kernel/mm/hugepages/{}/nr_hugepages", page.pool_name());
    let early = "or early, on the host kernel's command line";
    let Some(bytes) = need else {
        if pool.available() > 0 {
            return Line::ok(id, format!("Pages of {page}: {have}"));
        }
        return Line::warn(
            id,
            format!("No page of {page} is available ({have}); guest memory requires them"),
            format!(
                "echo 512 > {file}  # 512 pages for 1 GiB; {early}: hugepagesz={page} hugepages=512"
            ),
        );
    };
    let need = page.pages_for(bytes);
    let wanted = format!("{need} pages of {page} for {}", size(bytes));
    if need <= pool.available() {
        return Line::ok(id, format!("{wanted}: {have}"));
    }
    let total = pool
        .total
        .saturating_add(need.saturating_sub(pool.available()));
    Line::fail(
        id,
        format!(
            "{wanted} are required, of which {} are available: {have}",
            pool.available()
        ),
        format!("echo {total} > {file}  # {early}: hugepagesz={page} hugepages={total}"),
    )
}

/// [`Id::PinnedMemory`]. A pinned page stays whatever the host does: nothing here is about pages
/// that a guest has, all about pages that it may not get.
pub(crate) fn check_pinned_memory(root: &SysRoot) -> Line {
    let id = Id::PinnedMemory;
    if let Some(Balloon {
        bus,
        driver,
        device,
    }) = balloon(root)
    {
        return Line::warn(
            id,
            format!(
                "The hypervisor of this host can reclaim free memory through {driver} \
                 ({device}). It cannot reclaim pinned pages, but may leave none to reserve"
            ),
            format!("echo {device} > /sys/bus/{bus}/drivers/{driver}/unbind"),
        );
    }
    match movable_memory(root) {
        Some(word) => Line::warn(
            id,
            format!(
                "The host kernel was booted with {word}: hugepages in movable memory are migrated \
                 before they are pinned, which fails if no other is free"
            ),
            format!("boot the host without {word}, or reserve twice the hugepages"),
        ),
        None => Line::ok(id, "No balloon and no movable hugepages"),
    }
}

/// [`Id::MemoryErrors`]
pub(crate) fn check_memory_errors(root: &SysRoot) -> Line {
    let id = Id::MemoryErrors;
    match Meminfo::read(root).and_then(|meminfo| meminfo.kib("HardwareCorrupted")) {
        Some(kib) if kib > 0 => Line::warn(
            id,
            format!(
                "{kib} KiB of host memory have failed since boot. The kernel no longer gives such pages \
                 to programs, but a device can still access them"
            ),
            "dmesg | grep -i -e 'memory failure' -e mce",
        ),
        _ => Line::ok(id, "No host memory has failed since boot"),
    }
}

#[cfg(test)]
mod tests {
    use address::Hpa;

    use super::*;
    use crate::checks::line::Verdict;
    use crate::facts::memory::end_of_memory;
    use crate::sys_root::tests::Fake;

    const POOL: &str = "sys/kernel/mm/hugepages/hugepages-2048kB";

    fn pool(fake: &Fake, total: u64, free: u64, reserved: u64) {
        for (name, count) in [
            ("nr_hugepages", total),
            ("free_hugepages", free),
            ("resv_hugepages", reserved),
        ] {
            fake.write(&format!("{POOL}/{name}"), &format!("{count}\n"));
        }
    }

    #[test]
    fn too_few_hugepages_end_in_the_number_to_write() {
        let fake = Fake::new();
        let wanted = WantedMemory {
            bytes: 1 << 30,
            hugepage_size: None,
        };
        let judge = |memory| check_hugepages(&fake.root, memory, true);
        assert!(judge(None)[0].text.contains("CONFIG_HUGETLBFS"));
        pool(&fake, 0, 0, 0);
        assert_eq!(judge(None)[0].verdict, Verdict::Warn);
        pool(&fake, 600, 550, 50);
        let line = &judge(Some(&wanted))[0];
        assert_eq!(line.verdict, Verdict::Fail);
        assert!(
            line.text
                .starts_with("512 pages of 2M for 1 GiB are required, of which 500")
        );
        assert!(line.hint.as_ref().unwrap().starts_with("echo 612 > "));
        pool(&fake, 600, 562, 50);
        for (node, free) in [(0, 300), (1, 262)] {
            let place = format!(
                "sys/devices/system/node/node{node}/hugepages/hugepages-2048kB/free_hugepages"
            );
            fake.write(&place, &free.to_string());
        }
        let line = &judge(Some(&wanted))[0];
        assert_eq!(line.verdict, Verdict::Ok);
        assert!(
            line.text.ends_with("(free: node0 300, node1 262)"),
            "{line:?}"
        );
        assert_eq!(judge(None).len(), 1);
        fake.write(&format!("{POOL}/free_hugepages"), "many");
        assert_eq!(judge(None)[0].verdict, Verdict::Fail);
    }

    #[test]
    fn hugepages_are_looked_at_only_where_they_are_needed() {
        let fake = Fake::new();
        let judge = |are_needed| check_hugepages(&fake.root, None, are_needed)[0].verdict;
        assert_eq!(judge(false), Verdict::Ok);
        assert_eq!(judge(true), Verdict::Fail);
    }

    #[test]
    fn balloons_and_movable_memory_are_warnings() {
        let fake = Fake::new();
        let judge = || check_pinned_memory(&fake.root);
        fake.write("sys/bus/virtio/drivers/virtio_balloon/bind", "");
        assert_eq!(judge().verdict, Verdict::Ok);
        fake.write("proc/cmdline", "quiet hugetlb_cma=1G\n");
        assert!(judge().text.contains("hugetlb_cma=1G"));
        fake.link(
            "sys/bus/virtio/drivers/virtio_balloon/virtio3",
            "sys/devices/x",
        );
        let line = judge();
        assert_eq!(line.verdict, Verdict::Warn);
        assert!(line.hint.unwrap().starts_with("echo virtio3 > "));
    }

    #[test]
    fn the_address_map_needs_root() {
        let fake = Fake::new();
        let judge = || check_address_map(&fake.root);
        assert!(judge().text.contains("Cannot read"));
        fake.write("proc/iomem", "00000000-00000000 : System RAM\n");
        assert!(judge().text.contains("hides addresses"));
        assert_eq!(end_of_memory(&fake.root), Hpa(0));
        fake.write("proc/meminfo", "MemTotal:       8000000 kB\n");
        assert_eq!(end_of_memory(&fake.root), Hpa(8_000_000 << 10));
        fake.write("proc/iomem", "00001000-7fffffff : System RAM\n");
        assert_eq!(judge().verdict, Verdict::Ok);
        assert_eq!(end_of_memory(&fake.root), Hpa(0x8000_0000));
    }

    #[test]
    fn failed_memory_is_a_warning() {
        let fake = Fake::new();
        fake.write("proc/meminfo", "HardwareCorrupted:     0 kB\n");
        assert_eq!(check_memory_errors(&fake.root).verdict, Verdict::Ok);
        fake.write("proc/meminfo", "HardwareCorrupted:     4 kB\n");
        assert_eq!(check_memory_errors(&fake.root).verdict, Verdict::Warn);
    }

    proptest::proptest! {
        // A tree of files is made for each.
        #![proptest_config(proptest::test_runner::Config::with_cases(32))]

        #[test]
        fn no_text_makes_it_panic(text in "\\PC*", count in "\\PC*") {
            let fake = Fake::new();
            fake.write("proc/iomem", &text);
            fake.write("proc/meminfo", &format!("MemTotal:{text}"));
            fake.write("proc/cmdline", &text);
            fake.write(&format!("{POOL}/nr_hugepages"), &count);
            check_address_map(&fake.root);
            end_of_memory(&fake.root);
            check_pinned_memory(&fake.root);
            check_hugepages(&fake.root, None, true);
        }
    }
}
