use std::os::unix::fs::symlink;

use expect_test::expect;
use proptest::prelude::*;

use super::*;

fn gpu(n: usize) -> GpuUuid {
    GpuUuid(format!("GPU-{n}"))
}

fn link(n_gpus: usize) -> impl Strategy<Value = (GpuUuid, Link)> {
    let to = prop_oneof![
        (0..n_gpus).prop_map(|n| Link::Gpu(gpu(n))),
        (0..3_usize).prop_map(|n| Link::Hub(format!("switch-{n}"))),
    ];
    ((0..n_gpus).prop_map(gpu), to)
}

/// Whether one GPU reaches another over links, found by walking.
fn reaches(links: &[(GpuUuid, Link)], from: &GpuUuid, to: &GpuUuid) -> bool {
    let (mut seen, mut todo) = (BTreeSet::from([Link::Gpu(from.clone())]), vec![Link::Gpu(from.clone())]);
    while let Some(at) = todo.pop() {
        for (a, b) in links {
            let a = Link::Gpu(a.clone());
            for (near, far) in [(&a, b), (b, &a)] {
                if *near == at && seen.insert(far.clone()) {
                    todo.push(far.clone());
                }
            }
        }
    }
    seen.contains(&Link::Gpu(to.clone()))
}

proptest! {
    /// Two GPUs have one island exactly if one reaches the other; the order of
    /// the links does not matter; numbers are dense and rise with the GPUs.
    #[test]
    fn an_island_is_what_is_reached(mut links in prop::collection::vec(link(7), 0..14), turn in 0..14_usize) {
        let gpus: Vec<GpuUuid> = (0..7).map(gpu).collect();
        let named = islands(&gpus, &links);
        for a in &gpus {
            for b in gpus.iter().filter(|b| *b != a) {
                let together = named.contains_key(a) && named.get(a) == named.get(b);
                prop_assert_eq!(together, reaches(&links, a, b));
            }
        }
        let firsts: BTreeSet<u32> = named.values().copied().collect();
        prop_assert!(firsts.iter().copied().eq(0..u32::try_from(firsts.len()).unwrap()));
        let turn = turn.min(links.len());
        links.rotate_left(turn);
        prop_assert_eq!(named, islands(&gpus, &links));
    }

    /// What is nearest is no farther than anything else, and never at another NUMA node.
    #[test]
    fn the_nearest_is_nearest(
        gpu in prop::collection::vec(0..3_u32, 1..4), numa in prop::option::of(0..2_u32),
        nics in prop::collection::vec((prop::collection::vec(0..3_u32, 1..4), prop::option::of(0..2_u32)), 0..6),
    ) {
        let place = |path: &[u32], numa_node| Place { path: path.iter().map(u32::to_string).collect(), numa_node };
        let nics: Vec<(String, Place)> =
            (0..).zip(&nics).map(|(n, (path, numa))| (format!("eth{n}"), place(path, *numa))).collect();
        let gpu = place(&gpu, numa);
        let near = nearest(&gpu, &nics);
        let distance = |name: &String| gpu.distance(&nics.iter().find(|(nic, _)| nic == name).unwrap().1);
        for (nic, _) in &nics {
            prop_assert!(near.iter().all(|near| distance(near) <= distance(nic)));
            prop_assert!(!near.is_empty() || distance(nic).0 == Distance::Far);
        }
        prop_assert!(near.iter().all(|near| distance(near).0 != Distance::Far));
    }
}

/// A PCI device below a sysfs root, with its entry on the bus.
fn device(sysfs: &Path, path: &str, numa_node: &str) {
    let real = sysfs.join("devices").join(path);
    std::fs::create_dir_all(&real).unwrap();
    std::fs::write(real.join("numa_node"), numa_node).unwrap();
    let bus = sysfs.join("bus/pci/devices");
    std::fs::create_dir_all(&bus).unwrap();
    symlink(&real, bus.join(real.file_name().unwrap())).unwrap();
}

fn class(sysfs: &Path, class: &str, name: &str, device: &str, speed: Option<&str>) {
    let real = sysfs.join("devices").join(device).join(class).join(name);
    std::fs::create_dir_all(&real).unwrap();
    symlink(sysfs.join("devices").join(device), real.join("device")).unwrap();
    if let Some(speed) = speed {
        std::fs::write(real.join("speed"), speed).unwrap();
    }
    let entry = sysfs.join("class").join(class);
    std::fs::create_dir_all(&entry).unwrap();
    symlink(real, entry.join(name)).unwrap();
}

#[test]
fn sysfs_tells_interfaces_and_what_is_near() {
    let folder = tempfile::tempdir().unwrap();
    let sysfs = folder.path().canonicalize().unwrap();
    let switch = "pci0000:15/0000:15:01.0/0000:16:00.0";
    device(&sysfs, &format!("{switch}/0000:17:00.0"), "0\n");
    device(&sysfs, &format!("{switch}/0000:18:00.0"), "0\n");
    device(&sysfs, "pci0000:15/0000:19:00.0", "0\n");
    device(&sysfs, "pci0000:80/0000:81:00.0", "1\n");
    device(&sysfs, "pci0000:80/0000:82:00.0", "1\n");
    device(&sysfs, "pci0000:00/0000:00:03.0", "-1\n");
    class(&sysfs, "net", "ib0", &format!("{switch}/0000:18:00.0"), Some("400000\n"));
    class(&sysfs, "infiniband", "mlx5_0", &format!("{switch}/0000:18:00.0"), None);
    class(&sysfs, "net", "eth0", "pci0000:15/0000:19:00.0", Some("25000\n"));
    class(&sysfs, "net", "eth1", "pci0000:80/0000:82:00.0", Some("-1\n"));
    class(&sysfs, "net", "ens3", "pci0000:00/0000:00:03.0/virtio0", None);
    std::fs::create_dir_all(sysfs.join("class/net/lo")).unwrap();
    let rows: Vec<String> = nics(&sysfs)
        .iter()
        .map(|nic| {
            let NicInfo { name, numa_node, pci_address, speed_mbps, rdma } = nic;
            format!("{name} {} numa {numa_node:?} speed {speed_mbps:?} rdma {rdma}", pci_address.as_ref().unwrap())
        })
        .collect();
    expect![[r"
        ens3 0000:00:03.0 numa None speed None rdma false
        eth0 0000:19:00.0 numa Some(0) speed Some(25000) rdma false
        eth1 0000:82:00.0 numa Some(1) speed None rdma false
        ib0 0000:18:00.0 numa Some(0) speed Some(400000) rdma true"]]
    .assert_eq(&rows.join("\n"));
    let places = nic_places(&sysfs);
    let near = |address: &str| nearest(&place(&sysfs, address), &places).join(" ");
    assert_eq!((near("0000:17:00.0").as_str(), near("0000:81:00.0").as_str()), ("ib0", "eth1"));
    assert_eq!(near("0000:ff:00.0"), "", "what is not on the bus is near to nothing");
    assert_eq!(nics(&sysfs.join("nowhere")), Vec::new());
}
