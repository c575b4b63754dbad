//! Healthy logs, quoted faults and foreign words: nothing may be found.

use super::draw::Draw;
use crate::diagnose::observe::Observer;
use crate::diagnose::rules::Rules;

/// Templates of each kind, 59 in all, which is how many different decoys there are: the ten
/// thousand lines are these with other numbers. `{n}` is a number, `{h}` eight hex digits.
const KINDS: [(&str, &[&str]); 10] = [
    (
        "training",
        &[
            "step={n} loss=2.{n} grad_norm=0.{n} tokens/s={n}",
            "[rank{n}]: epoch 3 iter {n}/90000 lr 3.0e-4 mem 71.{n}GB data 0.0{n}s",
            "INFO:root:saved checkpoint /ckpt/step_{n}.pt in 12.{n} s",
            "{\"step\": {n}, \"loss\": 1.{n}, \"error_rate\": 0.0{n}, \"timeout_s\": 1800}",
            "WARNING: gradient overflow, skipping step, loss scaler 0 reducing loss scale to {n}",
        ],
    ),
    (
        "nccl",
        &[
            "node1:{n}:{n} [0] NCCL INFO NET/IB : Using [0]mlx5_0:1/IB [RO]; OOB eth0:192.0.2.4<0>",
            "node1:{n}:{n} [3] NCCL INFO Channel 0{n}/0 : 3[3] -> 4[4] via P2P/CUMEM/read",
            "node1:{n}:{n} [1] NCCL INFO [Service thread] Connection closed by localRank {n}",
            "node1:{n}:{n} [0] NCCL INFO NCCL_TIMEOUT set by environment to 1800.",
            "node1:{n}:{n} [5] NCCL INFO ncclCommInitRank comm 0x{h} rank 5 nranks 64 busId 9d000 - Init COMPLETE",
        ],
    ),
    (
        "kernel",
        &[
            "[{n}.123456] NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  570.158.01  Release Build",
            "[{n}.223456] nvidia 0000:3b:00.0: enabling device (0140 -> 0142)",
            "[{n}.323456] amdgpu 0000:c1:00.0: amdgpu: no uncorrectable hardware errors detected in umc block",
            "[{n}.423456] mlx5_core 0000:5e:00.0: Port module event: module 0, Cable plugged",
            "[{n}.523456] nvme nvme0: 64/0/0 default/read/poll queues",
            "[{n}.623456] EXT4-fs (sda2): mounted filesystem with ordered data mode. Quota mode: none.",
            "[{n}.723456] pcieport 0000:40:01.1: AER: enabled with IRQ {n}",
            "[{n}.823456] amdgpu 0000:c1:00.0: amdgpu: RAS INFO: ras initialized successfully, hardware ability[7fff]",
        ],
    ),
    (
        "serving",
        &[
            "INFO 07-10 14:48:13 [core.py:193] init engine (profile, create kv cache, warmup model) took {n}.1 seconds",
            "(EngineCore_DP0 pid={n}) INFO 10-15 08:32:29 [gpu_worker.py:255] Available KV cache memory: 18.{n} GiB",
            "INFO:     192.0.2.9:{n} - \"POST /v1/chat/completions HTTP/1.1\" 200 OK",
            "INFO 07-10 14:48:13 [kv_cache_utils.py:833] GPU KV cache size: {n} tokens",
        ],
    ),
    (
        "cluster",
        &[
            "I0102 03:04:05.678901    1234 kubelet.go:2456] \"SyncLoop (PLEG): event for pod\" pod=\"ml/train-{n}\"",
            "time=\"2026-01-02T03:04:05Z\" level=info msg=\"PullImage \\\"registry.example.com/train:{n}\\\" returns image reference\"",
            "2026-01-02T03:04:05.123456789Z stdout F worker {n} ready",
            "  Normal  Scheduled  {n}s  default-scheduler  Successfully assigned ml/train-{n} to node-7",
            "    Reason:       Completed\n    Exit Code:    0",
            "  \"OOMKilled\": false, \"Error\": \"\", \"ExitCode\": 0, \"n\": {n}",
        ],
    ),
    (
        "foreign xid",
        &[
            "LOG:  transaction ID wrap limit is {n}, limited by database with OID 1; oldest xid {n}",
            "dhclient[{n}]: DHCPREQUEST for 192.0.2.17 on eth0 to 255.255.255.255 port 67 (xid=0x{h})",
            "[Note] InnoDB: Starting recovery for XA transactions... XID {n}",
            "nfs4: xid 0x{h} reply on tcp:192.0.2.3",
            "rpc: xid {n} call took 12 ms",
            "psql: DETAIL: Process {n} waits for ShareLock on transaction {n}; xid 79",
        ],
    ),
    (
        "quoted",
        &[
            "user prompt: explain \"Xid {n} uncorrectable double bit error\"",
            "# handler: if line matches \"NVRM: Xid (PCI:0000:00:00): 79\" then reboot {n}",
            "> NVRM: Xid (PCI:0000:3b:00): 79, pid=1, GPU has fallen off the bus. ({n})",
            "root@node-{n}:~# grep \"NVRM: Xid (PCI:0000:3b:00): 48\" /var/log/kern.log",
            "The documentation says `NVRM: Xid (PCI:0000:3b:00): 48, pid=1` stands for an ECC error, page {n}",
            "| 79 | GPU has fallen off the bus | reboot, then field diagnostic | {n} |",
            "{\"role\": \"user\", \"content\": \"NVRM: Xid (PCI:0000:3b:00): 79, pid={n}, GPU has fallen off the bus.\"}",
            "    raise RuntimeError(\"CUDA out of memory. Tried to allocate {n} GiB\")",
            "If you see CUDA out of memory, reduce the batch size below {n}",
            "sudo: op{n} : TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/usr/bin/echo NVRM: Xid (PCI:0000:3b:00): 79, pid=1",
        ],
    ),
    (
        "web",
        &[
            "192.0.2.{n} - - [02/Jan/2026:03:04:05 +0000] \"GET /health HTTP/1.1\" 200 {n}",
            "10.0.0.{n} GET /docs/errors/xid-79-gpu-has-fallen-off 200",
            "[notice] {n}#{n}: using the \"epoll\" event method",
        ],
    ),
    (
        "tools",
        &[
            "GPU {n}: clocks event reasons 0x4 (SW power cap)",
            "        HW Thermal Slowdown               : Not Active",
            "        Pending                           : No",
            "        Remapping Failure Occurred        : No",
            "# HELP DCGM_FI_DEV_XID_ERRORS Value of the last XID error encountered.",
            "DCGM_FI_DEV_XID_ERRORS{gpu=\"{n}\",UUID=\"GPU-{h}-0000-0000-0000-000000000000\"} 0",
            "| GPU Memory                | Pass - GPUs: 0, 1, 2, 3, 4, 5, 6, 7            |",
        ],
    ),
    (
        "code",
        &[
            "except torch.cuda.OutOfMemoryError as error:  # {n}",
            "    if \"out of memory\" in str(error): return {n}",
            "assert 'NCCL WARN' not in log, f'{n}'",
            "pattern = re.compile(r'Xid \\(PCI:([0-9a-f:]+)\\): (\\d+)')  # {n}",
            "const EADDRINUSE_RETRIES = {n};",
        ],
    ),
];

#[test]
fn ten_thousand_lines_of_59_healthy_templates_give_no_finding() {
    let mut draw = Draw(20_261_128);
    let mut lines = 0;
    for (kind, forms) in KINDS {
        let mut observer = Observer::new(Rules::built_in(), kind);
        for _ in 0..1_000 {
            let number = draw.below(9_000) + 1;
            let hex = format!("{:08x}", draw.next() & 0xffff_ffff);
            let line = draw.pick(forms).replace("{n}", &number.to_string()).replace("{h}", &hex);
            observer.text(&line);
            lines += 1;
        }
        let found = observer.finish().findings;
        let shown: Vec<_> = found.iter().map(|f| (f.code.to_string(), f.rules.clone(), f.excerpt.clone())).collect();
        assert!(shown.is_empty(), "{kind}: {shown:#?}");
    }
    let templates: usize = KINDS.iter().map(|(_, forms)| forms.len()).sum();
    println!("{lines} lines of {templates} templates, no finding");
    assert_eq!((lines, templates), (10_000, 59));
}
