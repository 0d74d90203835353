// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What is mapped where: 16 GiB in pages of one size, scattered so that no two are neighbours.

/// First IOVA of the ordinary layouts: the cookie of guest memory.
pub const LOW: u64 = 1 << 30;
/// First IOVA of the layouts with pages of more than 1 GiB.
pub const ALIGNED: u64 = 1 << 35;
/// First IOVA of the layout that needs a higher tree.
pub const HIGH: u64 = 1 << 40;
/// Bytes mapped.
pub const MAPPED: u64 = 16 << 30;

/// IOVA, HPA and bytes of each page, by IOVA.
pub fn scattered(base: u64, page_lg2: u32) -> Vec<(u64, u64, u64)> {
    let pages = MAPPED >> page_lg2;
    let mut places: Vec<u64> = (0..pages).collect();
    fastrand::Rng::with_seed(1).shuffle(&mut places);
    (0..pages)
        .zip(places)
        // Every other place stays free.
        .map(|(nth, place)| {
            let iova = base + (nth << page_lg2);
            (iova, (2 * place + 1) << page_lg2, 1 << page_lg2)
        })
        .collect()
}

/// `count` random IOVAs from `base` on.
pub fn keys(base: u64, count: usize) -> Vec<u64> {
    let mut random = fastrand::Rng::with_seed(2);
    let mut key = || base + (random.u64(..MAPPED) & !7);
    (0..count).map(|_| key()).collect()
}
