package records

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// Member tells about one member of a group: see ../../README.md. Its methods may be called from
// several goroutines.
type Member struct {
	mutex       sync.Mutex
	held        map[int32]bool
	uncommitted map[int32]int64
}

// NewMember is a member that holds nothing yet.
func NewMember() *Member {
	return &Member{held: map[int32]bool{}, uncommitted: map[int32]int64{}}
}

// UntilToldToLeave is done after SIGTERM.
func UntilToldToLeave() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), syscall.SIGTERM)
}

// Assigned says that partitions came to those it holds.
func (m *Member) Assigned(partitions []int32) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	for _, partition := range partitions {
		m.held[partition] = true
	}
	m.show()
}

// Revoked says that partitions were given back or lost.
func (m *Member) Revoked(partitions []int32) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	for _, partition := range partitions {
		delete(m.held, partition)
		delete(m.uncommitted, partition)
	}
	m.show()
}

// Read says that a record was read.
func (m *Member) Read(partition int32, offset int64) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	fmt.Fprintf(os.Stdout, "record %d %d\n", partition, offset)
	m.uncommitted[partition] = offset + 1
}

// Committed says that the broker has taken a commit of all that was read.
func (m *Member) Committed() {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	for partition, offset := range m.uncommitted {
		fmt.Fprintf(os.Stdout, "committed %d %d\n", partition, offset)
	}
	clear(m.uncommitted)
}

// Refused says that the broker has not taken a commit, which is repeated later.
func (m *Member) Refused(err error) {
	fmt.Fprintf(os.Stdout, "refused %s\n", strings.ReplaceAll(err.Error(), "\n", " "))
}

func (m *Member) show() {
	held := make([]int32, 0, len(m.held))
	for partition := range m.held {
		held = append(held, partition)
	}
	slices.Sort(held)
	words := strings.Trim(fmt.Sprint(held), "[]")
	fmt.Fprintf(os.Stdout, "assigned %s\n", strings.ReplaceAll(words, " ", ","))
}
