package main

import (
	"errors"
	"time"

	"github.com/IBM/sarama"

	"chronik/tests/clients/go/records"
)

var strategies = map[string]sarama.BalanceStrategy{
	"":           sarama.NewBalanceStrategyRange(),
	"range":      sarama.NewBalanceStrategyRange(),
	"roundrobin": sarama.NewBalanceStrategyRoundRobin(),
	"sticky":     sarama.NewBalanceStrategySticky(),
}

// join is a member of a group until it is told to leave.
func join(options records.Options) error {
	config := sarama.NewConfig()
	config.Version = sarama.V4_0_0_0
	config.Consumer.MaxWaitTime = 100 * time.Millisecond
	config.Consumer.Return.Errors = true
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	config.Consumer.Offsets.AutoCommit.Enable = false
	config.Consumer.Group.InstanceId = options.InstanceID
	config.Consumer.Group.Session.Timeout = time.Duration(options.SessionMs) * time.Millisecond
	config.Consumer.Group.Heartbeat.Interval = 500 * time.Millisecond
	config.Consumer.Group.Rebalance.GroupStrategies =
		[]sarama.BalanceStrategy{strategies[options.Assignor]}
	// A broker that is killed and started again is away for seconds.
	config.Metadata.Retry.Max = 100
	config.Consumer.Group.Rebalance.Retry.Max = 100
	group, err := sarama.NewConsumerGroup([]string{options.Bootstrap}, options.Group, config)
	if err != nil {
		return err
	}
	ctx, stop := records.UntilToldToLeave()
	defer stop()
	member := &member{records.NewMember()}
	go func() {
		for err := range group.Errors() {
			member.Refused(err)
		}
	}()
	for ctx.Err() == nil {
		err := group.Consume(ctx, []string{options.Topic}, member)
		if errors.Is(err, sarama.ErrClosedConsumerGroup) {
			return err
		}
		if err != nil {
			member.Refused(err)
		}
	}
	return group.Close()
}

// member is what Sarama calls a handler: one session is one assignment. Sarama tells of a commit
// only when it fails, so none is printed.
type member struct{ *records.Member }

func (m *member) Setup(session sarama.ConsumerGroupSession) error {
	for _, partitions := range session.Claims() {
		m.Assigned(partitions)
	}
	return nil
}

func (m *member) Cleanup(session sarama.ConsumerGroupSession) error {
	session.Commit()
	for _, partitions := range session.Claims() {
		m.Revoked(partitions)
	}
	return nil
}

func (m *member) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for message := range claim.Messages() {
		m.Read(message.Partition, message.Offset)
		session.MarkMessage(message, "")
		if len(claim.Messages()) == 0 {
			session.Commit()
		}
	}
	return nil
}
