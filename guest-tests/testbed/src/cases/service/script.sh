testbed-bind "$TESTBED_BDF_0" || exit 1
say bdf "$TESTBED_BDF_0"
systemd-analyze verify $units/pinvisor@.service > /tmp/verify 2>&1
say verify "$? $(cat /tmp/verify)"

# A guest from its start to its end by its power button. It lives longer than the watchdog waits.
unit disk kernel 'WatchdogSec=3s'
printf '%s\n' 'initramfs = "/testbed/initramfs"' 'cmdline = "console=ttyS0 quiet"' >> /etc/pinvisor/disk.toml
testbed-mark 1
systemctl start pinvisor@disk
say start $?
show ready disk
processes ready disk
say inherited "$(tr '\0' '\n' < /proc/$monitor/environ | grep -cE '^(NOTIFY_SOCKET|WATCHDOG_(USEC|PID))=') $(tr '\0' '\n' < /proc/$keeper/environ | grep -cE '^(NOTIFY_SOCKET|WATCHDOG_(USEC|PID))=')"
await_waits disk
sleep 4
show works disk
# No other device can be opened in its control group.
head -c 1 /dev/mem > /dev/null && say mem_outside allowed
sh -c "echo \$\$ > $(group disk)/cgroup.procs && exec head -c 1 /dev/mem" > /dev/null 2> /tmp/denied
say mem_inside "$(cat /tmp/denied)"
systemctl stop pinvisor@disk
say stop $?
testbed-mark 2
show_order
show stopped disk
cat /var/log/pinvisor/disk /var/log/pinvisor/disk.log
await_exit
await_pool
say_hugepages stopped

# A monitor that hangs: the watchdog ends it, and the keeper gives all back.
unit hangs endless 'WatchdogSec=2s' 'TimeoutAbortSec=1s'
systemctl start pinvisor@hangs
processes hangs hangs
kill -STOP $monitor
for tenth in $(seq 300); do
    systemctl --quiet is-active pinvisor@hangs || break
    sleep 0.1
done
await_exit
await_pool
show hung hangs
say_hugepages hung

# A run that cannot start reports why.
unit fails nowhere
systemctl start pinvisor@fails 2> /dev/null
say fails $?
show failed fails

# A device that cannot be stopped: the keeper outlives the stop of the service, and keeps the memory.
lie='Environment=LD_PRELOAD=/testbed/bin/libfalsify.so "FALSIFY=pread 0x70000000004 1- u16@0=0x107; pread 4 1- u16@0=0x107"'
unit keeps endless "$lie"
systemctl start pinvisor@keeps
processes keeps keeps
systemctl stop pinvisor@keeps
show kept keeps
processes kept keeps
say_hugepages kept
pinvisor list > /tmp/list 2>&1
say listed "$(grep -c "keeps .* for $TESTBED_BDF_0" /tmp/list)"
# Also the next start and stop leave it alone, and the second run keeps its memory, too.
systemctl start pinvisor@keeps 2> /dev/null
systemctl stop pinvisor@keeps
processes still keeps
pinvisor release "$TESTBED_BDF_0"
say released $?
await_exit
await_pool
say_hugepages released

# The same if systemd kills the whole control group: the memory is the host's again, and the device was not stopped.
unit loses endless "$lie" 'KillMode=control-group' 'TimeoutStopSec=3s'
systemctl start pinvisor@loses
systemctl stop pinvisor@loses
processes lost loses
await_pool
say_hugepages lost

say_processes
say_hugepages after
true
