# One run with the example's capabilities: nothing but these.
in_container pinvisor check "$TESTBED_BDF_0" --memory 64M > /tmp/check
say check $?
cat /tmp/check
in_container pinvisor run --noiommu --memory 64M --kernel /testbed/endless --device "$TESTBED_BDF_0" < /dev/null > /dev/null 2>&1 &
monitor=$!
for tenth in $(seq 300); do
    first=$(runc state guest 2>/dev/null | sed -n 's/.*"pid": \([0-9]*\),.*/\1/p')
    ls -l "/proc/$first/fd" 2>/dev/null | grep -q kvm-vcpu && break
    sleep 0.1
done
# What the container gives. The monitor drops what it has of that when its guest starts.
say capabilities "$(sed -n 's/^CapBnd:\t*//p' "/proc/$first/status")"
# No other device can be opened in its control group.
head -c 1 /dev/mem > /dev/null && say mem_outside allowed
group=/sys/fs/cgroup$(sed 's/^0:://' "/proc/$first/cgroup")
sh -c "echo \$\$ > $group/cgroup.procs && exec head -c 1 /dev/mem" > /dev/null 2> /tmp/denied
say mem_inside "$(cat /tmp/denied)"
runc kill guest TERM
wait $monitor
say terminated $?
say_hugepages terminated

# With CAP_SYS_ADMIN pages are checked.
capabilities=', "CAP_SYS_ADMIN"'
in_container pinvisor -v run --noiommu --memory 64M --kernel /testbed/off --device "$TESTBED_BDF_0" < /dev/null > /tmp/admin 2>&1
say admin $?
say pages "$(grep -o 'pages of guest memory are at the addresses that devices use' /tmp/admin)"
capabilities=

# In a user namespace the kernel answers EPERM, also if that has the same users.
for map in '0 0 1' '0 0 4294967295'; do
    in_user_namespace "$map" /testbed/bin/pinvisor check "$TESTBED_BDF_0" > /tmp/check
    say "namespace_${map##* }" "$? $(grep capability-rawio /tmp/check)"
done
ulimit -l unlimited
in_user_namespace '0 0 4294967295' /testbed/bin/pinvisor run --noiommu --memory 64M --kernel /testbed/off --device "$TESTBED_BDF_0" > /tmp/run 2>&1
say namespace_run "$? $(cat /tmp/run)"
# A monitor there gets everything through a socket, from a launcher outside. A capability of its own does not count.
pinvisor launch --serve /tmp/handover --noiommu --memory 64M --kernel /testbed/off --device "$TESTBED_BDF_0" &
launcher=$!
for tenth in $(seq 300); do
    [ -e /tmp/handover ] && break
    sleep 0.1
done
in_user_namespace '0 0 4294967295' /testbed/bin/pinvisor -v run --handover socket=/tmp/handover --noiommu --memory 64M \
    --kernel /testbed/off --device "$TESTBED_BDF_0" > /tmp/run 2>&1
say namespace_handover "$? $(grep -c 'pages of guest memory are at the addresses that devices use' /tmp/run)"
cat /tmp/run
wait $launcher
say namespace_launcher $?
say_hugepages namespace

# A device that cannot be stopped: the container stays until its memory is released.
environment=', "LD_PRELOAD=/testbed/bin/libfalsify.so", "FALSIFY=pread 0x70000000004 1- u16@0=0x107; pread 4 1- u16@0=0x107"'
in_container pinvisor run --noiommu --memory 64M --kernel /testbed/off --device "$TESTBED_BDF_0" < /dev/null > /tmp/keeps 2>&1 &
monitor=$!
for tenth in $(seq 300); do
    grep -q 'this process remains' /tmp/keeps && break
    sleep 0.1
done
cat /tmp/keeps
environment=
say kept_state "$(runc state guest | sed -n 's/.*"status": "\(.*\)".*/\1/p')"
say_hugepages kept
pinvisor list > /tmp/list 2>&1
say listed "$(grep -c "keeps .* for $TESTBED_BDF_0" /tmp/list)"
pinvisor release "$TESTBED_BDF_0"
say released $?
wait $monitor
say kept_status $?
await_pool
say_hugepages released

# The whole container is killed while the device works: the kernel closes the device before it unpins the memory.
rm -f /tmp/serial; touch /tmp/serial
echo > /sys/kernel/tracing/trace
testbed-mark 1
in_container pinvisor run --noiommu --kernel /testbed/kernel --memory 128M --initramfs /testbed/initramfs \
    --cmdline 'console=ttyS0 quiet' --device "$TESTBED_BDF_0" < /dev/null > /tmp/serial 2>&1 &
monitor=$!
await_guest
runc kill guest KILL
wait $monitor
say killed $?
await_exit
await_pool
testbed-mark 2
show_order
cat /tmp/serial
say_hugepages killed
hand_back back "$TESTBED_BDF_0"

say_processes
say_hugepages after
true
