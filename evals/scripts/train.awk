# Machines and requests to train the shipped programs with (evals/scripts/dist): made up, many
# kinds, of no trace that anything is measured on.   awk -v nodes=FILE -v pods=FILE -f train.awk
function draw(n) { seed = (seed * 69069 + 1) % 4294967296; return int(seed / 4294967296 * n) } # in [0, n)
BEGIN {
  seed = 7; n_models = split("A10 A100 H100 L4 L40S T4", model, " "); split("8 8 8 4 4 2", gpus, " ")
  print "sn,cpu_milli,memory_mib,gpu,model" >nodes
  for (i = 0; i < 600; i++) {
    m = 1 + draw(n_models); cpu = 32000 * (1 + draw(3))
    printf "n%04d,%d,%d,%d,%s\n", i, cpu, cpu * 6, gpus[m], model[m] >nodes
  }
  n_counts = split("0 1 1 1 1 1 2 4 8", count, " "); n_kinds = 90
  for (k = 0; k < n_kinds; k++) {
    num[k] = count[1 + draw(n_counts)]
    cpu_milli[k] = 1000 * (1 + draw(num[k] > 1 ? 8 * num[k] : 12)); memory_mib[k] = 1024 * (1 + draw(48))
    milli[k] = num[k] == 0 ? 0 : num[k] == 1 && draw(2) ? 50 * (1 + draw(19)) : 1000
    spec[k] = num[k] == 0 || num[k] == 8 || draw(3) ? "" : model[1 + draw(n_models)] (draw(2) ? "|" model[1 + draw(n_models)] : "")
  }
  print "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time,scheduled_time" >pods
  for (i = 0; i < 4000; i++) {
    k = draw(n_kinds); k = draw(2) ? k : int(k / 4)
    printf "p%04d,%d,%d,%d,%d,%s,LS,Running,%d,%d,%d\n", i, cpu_milli[k], memory_mib[k], num[k], milli[k], spec[k], i, i + 100000, i >pods
  }
}
