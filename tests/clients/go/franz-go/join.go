package main

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"chronik/tests/clients/go/records"
)

var balancers = map[string]kgo.GroupBalancer{
	"":                   kgo.RangeBalancer(),
	"range":              kgo.RangeBalancer(),
	"uniform":            kgo.CooperativeStickyBalancer(),
	"roundrobin":         kgo.RoundRobinBalancer(),
	"cooperative-sticky": kgo.CooperativeStickyBalancer(),
}

// join is a member of a group until it is told to leave.
func join(options records.Options) error {
	ctx, stop := records.UntilToldToLeave()
	defer stop()
	member := records.NewMember()
	commit := func(client *kgo.Client) {
		if err := client.CommitUncommittedOffsets(context.Background()); err != nil {
			member.Refused(err)
			return
		}
		member.Committed()
	}
	partitions := func(given map[string][]int32) []int32 { return given[options.Topic] }
	settings := []kgo.Opt{
		kgo.SeedBrokers(options.Bootstrap),
		kgo.ConsumerGroup(options.Group),
		kgo.ConsumeTopics(options.Topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchMaxWait(100 * time.Millisecond),
		kgo.Balancers(balancers[options.Assignor]),
		kgo.SessionTimeout(time.Duration(options.SessionMs) * time.Millisecond),
		kgo.HeartbeatInterval(500 * time.Millisecond),
		kgo.DisableAutoCommit(),
		kgo.BlockRebalanceOnPoll(),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, given map[string][]int32) {
			member.Assigned(partitions(given))
		}),
		kgo.OnPartitionsRevoked(func(_ context.Context, client *kgo.Client, taken map[string][]int32) {
			commit(client)
			member.Revoked(partitions(taken))
		}),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, lost map[string][]int32) {
			member.Revoked(partitions(lost))
		}),
	}
	if options.Protocol == "consumer" {
		settings = append(settings, kgo.ServerSideBalancer())
	}
	if options.InstanceID != "" {
		settings = append(settings, kgo.InstanceID(options.InstanceID))
	}
	client, err := kgo.NewClient(settings...)
	if err != nil {
		return err
	}
	defer client.Close()
	defer client.AllowRebalance()
	for {
		fetches := client.PollRecords(ctx, 100)
		if ctx.Err() != nil {
			return nil
		}
		fetches.EachRecord(func(record *kgo.Record) { member.Read(record.Partition, record.Offset) })
		commit(client)
		client.AllowRebalance()
	}
}
