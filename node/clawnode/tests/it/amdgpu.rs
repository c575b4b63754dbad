//! A sysfs as the amdgpu driver makes it, and tools beside it.

use std::fmt::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use clawnode::gpu::rocm::ToolOptions;
use clawnode::gpu::{GpuDetector, GpuOptions};

/// Folder of the recorded forms.
const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/rocm");
const GIB: u64 = 1 << 30;

/// A GPU of the tree.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Board {
    /// Number of its DRM card.
    pub(crate) card: u32,
    /// Where it is below `devices`, the address last.
    pub(crate) path: &'static str,
    pub(crate) device: u16,
    pub(crate) revision: u8,
    pub(crate) serial: Option<u64>,
    pub(crate) vram_gib: u64,
    pub(crate) numa_node: i32,
}

impl Board {
    pub(crate) fn address(&self) -> &'static str {
        self.path.rsplit('/').next().unwrap()
    }

    /// Number of its render node.
    pub(crate) fn render(&self) -> u32 {
        128 + self.card
    }
}

/// A node of KFD's topology.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KfdNode<'a> {
    pub(crate) number: u32,
    pub(crate) board: &'a Board,
    pub(crate) gfx: u32,
    pub(crate) hive: u64,
    pub(crate) render: u32,
    /// Number of the partition, above the address.
    pub(crate) partition: u32,
    pub(crate) memory_gib: u64,
    /// Nodes that it has XGMI links to.
    pub(crate) linked: &'a [u32],
}

pub(crate) struct Tree {
    folder: tempfile::TempDir,
}

impl Tree {
    pub(crate) fn new() -> Self {
        let tree = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::create_dir(tree.tools()).unwrap();
        tree.write("module/amdgpu/version", "6.10.5\n");
        // A CPU.
        tree.write("class/kfd/kfd/topology/nodes/0/gpu_id", "0\n");
        tree.write("class/kfd/kfd/topology/nodes/0/properties", "cpu_cores_count 96\nsimd_count 0\nlocation_id 0\n");
        tree
    }

    pub(crate) fn sysfs(&self) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join("sys")
    }

    /// The folder of amd-smi and rocm-smi, at first without them.
    pub(crate) fn tools(&self) -> PathBuf {
        self.folder.path().join("tools")
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.sysfs().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        // Another file, since this may be a link.
        match std::fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{}", path.display()),
        }
        std::fs::write(path, text).unwrap();
    }

    pub(crate) fn remove(&self, path: &str) {
        let path = self.sysfs().join(path);
        if path.is_dir() { std::fs::remove_dir_all(path).unwrap() } else { std::fs::remove_file(path).unwrap() }
    }

    /// Makes a file whose reading fails with EIO: nobody's memory begins at zero.
    pub(crate) fn make_unreadable(&self, path: &str) {
        let path = self.sysfs().join(path);
        std::fs::remove_file(&path).unwrap();
        symlink("/proc/self/mem", &path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap_err().raw_os_error(), Some(5), "EIO");
    }

    fn link(&self, original: &Path, link: &str) {
        let link = self.sysfs().join(link);
        std::fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(original, link).unwrap();
    }

    /// A device on the PCI bus.
    pub(crate) fn pci(&self, path: &str, vendor: &str, class: &str, driver: Option<&str>, numa_node: i32) {
        let address = path.rsplit('/').next().unwrap();
        let driver_line = driver.map(|driver| format!("DRIVER={driver}\n")).unwrap_or_default();
        let device = format!("devices/{path}");
        self.write(&format!("{device}/uevent"), &format!("{driver_line}PCI_CLASS=0\nPCI_SLOT_NAME={address}\n"));
        self.write(&format!("{device}/vendor"), &format!("{vendor}\n"));
        self.write(&format!("{device}/class"), &format!("{class}\n"));
        self.write(&format!("{device}/numa_node"), &format!("{numa_node}\n"));
        self.link(&self.sysfs().join(&device), &format!("bus/pci/devices/{address}"));
    }

    pub(crate) fn interface(&self, name: &str, path: &str, numa_node: i32) {
        self.pci(path, "0x15b3", "0x020700", Some("mlx5_core"), numa_node);
        let device = self.sysfs().join("devices").join(path);
        let net = device.join("net").join(name);
        std::fs::create_dir_all(&net).unwrap();
        symlink(&device, net.join("device")).unwrap();
        self.link(&net, &format!("class/net/{name}"));
    }

    /// A DRM card of a device, with a connector and a render node.
    pub(crate) fn card(&self, number: u32, device: &str, render: u32) {
        let device = format!("devices/{device}");
        for name in [format!("card{number}"), format!("renderD{render}")] {
            let folder = format!("{device}/drm/{name}");
            self.write(&format!("{folder}/uevent"), "MAJOR=226\n");
            self.link(&self.sysfs().join(&device), &format!("{folder}/device"));
            self.link(&self.sysfs().join(&folder), &format!("class/drm/{name}"));
        }
        let connector = format!("class/drm/card{number}-DP-1");
        self.write(&format!("{connector}/status"), "disconnected\n");
        self.link(&self.sysfs().join(&device), &format!("{connector}/device"));
    }

    /// A GPU that amdgpu drives, with the files that every one has.
    pub(crate) fn gpu(&self, board: &Board) {
        self.pci(board.path, "0x1002", "0x120000", Some("amdgpu"), board.numa_node);
        self.card(board.card, board.path, board.render());
        self.gpu_files_back(board);
    }

    /// Writes the files anew that every GPU has.
    pub(crate) fn gpu_files_back(&self, board: &Board) {
        let file = |name: &str, text: String| self.write(&format!("devices/{}/{name}", board.path), &text);
        file("device", format!("{:#06x}\n", board.device));
        file("revision", format!("{:#04x}\n", board.revision));
        if let Some(serial) = board.serial {
            file("unique_id", format!("{serial:016x}\n"));
        }
        file("mem_info_vram_total", format!("{}\n", board.vram_gib * GIB));
        file("mem_info_vram_used", format!("{}\n", 283 * 1024 * 1024));
        file("gpu_busy_percent", "37\n".to_owned());
        file("power/runtime_status", "active\n".to_owned());
    }

    /// Writes files of a GPU.
    pub(crate) fn files(&self, board: &Board, files: &[(&str, &str)]) {
        for (name, text) in files {
            self.write(&format!("devices/{}/{name}", board.path), text);
        }
    }

    pub(crate) fn kfd(&self, node: KfdNode<'_>) {
        let folder = format!("class/kfd/kfd/topology/nodes/{}", node.number);
        let number = |hex: &str| u32::from_str_radix(hex, 16).unwrap();
        let mut parts = node.board.address().split([':', '.']);
        let domain = number(parts.next().unwrap());
        let [bus, device, function] = [(); 3].map(|()| number(parts.next().unwrap()));
        let location = node.partition << 28 | bus << 8 | device << 3 | function;
        let mut text = String::from("cpu_cores_count 0\nsimd_count 1216\n");
        writeln!(text, "gfx_target_version {}\nvendor_id 4098\ndevice_id {}", node.gfx, node.board.device).unwrap();
        writeln!(text, "location_id {location}\ndomain {domain}\ndrm_render_minor {}", node.render).unwrap();
        writeln!(text, "hive_id {}\nunique_id {}", node.hive, node.board.serial.unwrap_or(0)).unwrap();
        self.write(&format!("{folder}/properties"), &text);
        self.write(&format!("{folder}/gpu_id"), &format!("{}\n", 50_000 + node.number));
        let bank = format!("heap_type 1\nsize_in_bytes {}\nflags 0\n", node.memory_gib * GIB);
        self.write(&format!("{folder}/mem_banks/0/properties"), &bank);
        self.write(
            &format!("{folder}/io_links/0/properties"),
            &format!("type 2\nnode_from {}\nnode_to 0\n", node.number),
        );
        for (n, to) in (1..).zip(node.linked) {
            let link = format!("type 11\nversion_major 0\nnode_from {}\nnode_to {to}\nweight 15\n", node.number);
            self.write(&format!("{folder}/io_links/{n}/properties"), &link);
        }
    }

    /// Puts a tool in place, which prints these fixtures: (first argument, fixture).
    pub(crate) fn tool(&self, name: &str, outputs: &[(&str, &str)]) {
        symlink(Path::new(FIXTURES).join("fake-smi.sh"), self.tools().join(name)).unwrap();
        for (argument, fixture) in outputs {
            std::fs::copy(Path::new(FIXTURES).join(fixture), self.tools().join(format!("{name}.{argument}"))).unwrap();
        }
    }

    /// Tells a tool to misbehave, see `fake-smi.sh`.
    pub(crate) fn misbehave(&self, file: &str, text: &str) {
        std::fs::write(self.tools().join(file), text).unwrap();
    }

    /// Processes that the tools were.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let text = std::fs::read_to_string(self.tools().join("pids")).unwrap_or_default();
        text.lines().map(|line| line.parse().unwrap()).collect()
    }

    pub(crate) fn options(&self, gpu: &str) -> GpuOptions {
        GpuOptions {
            rocm_tools: ToolOptions {
                folder: Some(self.tools()),
                deadline_ms: 20_000,
                first_wait_ms: 9_000,
                facts_ms: 600_000,
                readings_ms: 50,
            },
            sysfs_root: self.sysfs(),
            nvml_library: Some(self.folder.path().join("none.so")),
            nvml_program: Some(env!("CARGO_BIN_EXE_clawnode").into()),
            ..GpuOptions::new(gpu, "n1", PathBuf::new())
        }
    }

    pub(crate) fn detector(&self) -> GpuDetector {
        GpuDetector::new(self.options("rocm")).unwrap()
    }
}
