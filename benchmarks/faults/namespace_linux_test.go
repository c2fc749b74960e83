package faults

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// insideVariable says that the test runs in a network namespace of its own already.
const insideVariable = "SPILLWAY_FAULTS_INSIDE"

// newNamespace makes a process that is started the first of a network namespace, which ends with it. Who is not root
// needs a namespace of users too, and is root in there.
func newNamespace() *syscall.SysProcAttr {
	with := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if os.Getuid() != 0 {
		with.Cloneflags |= syscall.CLONE_NEWUSER
		with.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		with.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	return with
}

// script runs commands of the shell, up to the first that fails, and returns what they say then.
func script(with *syscall.SysProcAttr, lines ...string) error {
	cmd := exec.Command("sh", "-ec", strings.Join(lines, "\n"))
	cmd.SysProcAttr = with
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%q: %w: %s", lines, err, out)
	}
	return nil
}

// pairing joins two namespaces, that of the caller and that of a process; the addresses are of those set aside for
// benchmarks (RFC 2544).
const (
	pairing = `ip link add caller type veth peer name callee netns %[1]d
		ip addr add 198.18.0.1/30 dev caller
		ip link set caller up
		nsenter -t %[1]d -n ip addr add 198.18.0.2/30 dev callee
		nsenter -t %[1]d -n ip link set callee up`
	calleeAddress = "198.18.0.2:50051"
)

// ways are the two ends of a veth pair, each in a namespace of its own.
type ways struct{ callee *callee }

// both runs a command with %s for the device at both ends.
func (w ways) both(t *testing.T, command string) {
	t.Helper()
	w.atCallee(t, fmt.Sprintf(command, "callee"))
	if err := script(nil, fmt.Sprintf(command, "caller")); err != nil {
		t.Fatal(err)
	}
}

// atCallee runs a command in the callee's namespace.
func (w ways) atCallee(t *testing.T, command string) {
	t.Helper()
	if err := script(nil, fmt.Sprintf("nsenter -t %d -n %s", w.callee.cmd.Process.Pid, command)); err != nil {
		t.Fatal(err)
	}
}

// betweenNamespaces plays some trouble between two network namespaces. The test runs itself again, in a namespace of
// its own, so that nothing of the machine's own network is touched and nothing is left behind.
func betweenNamespaces(t *testing.T, with func(ways) trouble) {
	if os.Getenv(insideVariable) == "" {
		runInside(t)
		return
	}
	none := leaks(t)
	callee := startCallee(t, ":50051", &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET})
	if err := script(nil, fmt.Sprintf(pairing, callee.cmd.Process.Pid)); err != nil {
		t.Fatal(err)
	}
	c := newCaller(t, calleeAddress, nil)
	survive(t, c, with(ways{callee}))
	c.close()
	callee.kill()
	none()
}

func runInside(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=3m")
	cmd.Env = append(os.Environ(), insideVariable+"=1")
	cmd.SysProcAttr = newNamespace()
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("in a namespace: %v\n%s", err, out)
	}
}

// The ways to lose a fifth of what leaves a device, or of what comes in: the kernel's netem, or a filter that throws
// dice, which more kernels have. Its instructions: load a random number; if it is at least .8 of 2^32, drop the packet;
// else pass it. On the way out it would not do: the kernel sees the drop and sends again at once.
var losses = []struct{ name, begin, end string }{
	{"netem", "tc qdisc add dev %s root netem loss 20%%", "tc qdisc del dev %s root"},
	{
		"a BPF filter",
		"sh -ec \"tc qdisc add dev %[1]s clsact; tc filter add dev %[1]s ingress bpf direct-action bytecode '4,32 0 0 4294963256,53 0 1 3435973836,6 0 0 2,6 0 0 0'\"",
		"tc qdisc del dev %s clsact",
	},
}

// devices makes the two ends in one namespace, to see what the machine allows.
const devices = "command -v nsenter; ip link add caller type veth peer name callee"

func TestPacketLossBetweenNamespaces(t *testing.T) {
	for _, loss := range losses {
		if err := script(newNamespace(), devices, fmt.Sprintf(loss.begin, "caller")); err != nil {
			t.Logf("no packet loss by %s here: %v", loss.name, err)
			continue
		}
		betweenNamespaces(t, func(w ways) trouble {
			return trouble{
				begin: func() { w.both(t, loss.begin) },
				end:   func() { w.both(t, loss.end) },
				lasts: limping,
			}
		})
		return
	}
	t.Log("the network in memory takes their place")
	TestPacketLossInMemory(t)
}

func TestPartitionBetweenNamespaces(t *testing.T) {
	if err := script(newNamespace(), devices); err != nil {
		t.Logf("no network namespaces here: %v; the network in memory takes their place", err)
		TestPartitionInMemory(t)
		return
	}
	betweenNamespaces(t, func(w ways) trouble {
		return trouble{
			begin: func() { w.atCallee(t, "ip link set callee down") },
			end:   func() { w.atCallee(t, "ip link set callee up") },
			lasts: failing,
		}
	})
}
