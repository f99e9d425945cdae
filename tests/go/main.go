// franz-go as its users use it. What the verbs have to do and print stands in tests/compatibility/main.rs.
package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

func main() {
	log.SetFlags(0)
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	arguments := os.Args[2:]
	switch verb := os.Args[1]; verb {
	case "admin":
		admin(ctx, arguments[0], arguments[1])
	case "produce":
		for _, argument := range arguments[2:] {
			topic, codec, _ := strings.Cut(argument, "/")
			produce(ctx, arguments[0], topic, codec, arguments[1])
		}
	case "consume":
		consume(ctx, arguments[0], arguments[1], arguments[2:])
	default:
		log.Fatalf("no verb %s", verb)
	}
}

func client(bootstrap string, options ...kgo.Opt) *kgo.Client {
	logger := kgo.BasicLogger(os.Stderr, kgo.LogLevelWarn, nil)
	base := []kgo.Opt{kgo.SeedBrokers(bootstrap), kgo.WithLogger(logger)}
	return must(kgo.NewClient(append(base, options...)...))
}

func admin(ctx context.Context, bootstrap, topic string) {
	cl := client(bootstrap, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	defer cl.Close()
	adm := kadm.NewClient(cl)
	fmt.Println("brokers", len(must(adm.ListBrokers(ctx))))
	must(adm.CreateTopic(ctx, 3, 1, nil, topic))
	if _, err := adm.CreateTopic(ctx, 3, 1, nil, topic); err != nil {
		fmt.Println("created again", err.(*kerr.Error).Code)
	}
	partitions := func() int { return len(must(adm.ListTopics(ctx, topic))[topic].Partitions) }
	settle(func() bool { return partitions() == 3 })
	fmt.Println("partitions", partitions())
	check(must(adm.UpdatePartitions(ctx, 5, topic)).Error())
	settle(func() bool { return partitions() == 5 })
	fmt.Println("partitions", partitions())

	retention := func() string {
		described := must(must(adm.DescribeTopicConfigs(ctx, topic)).On(topic, nil))
		check(described.Err)
		for _, config := range described.Configs {
			if config.Key == "retention.ms" {
				return config.MaybeValue()
			}
		}
		return "absent"
	}
	alter := func(change kadm.AlterConfig) {
		for _, response := range must(adm.AlterTopicConfigs(ctx, []kadm.AlterConfig{change}, topic)) {
			check(response.Err)
		}
	}
	fmt.Println("retention", retention())
	hour := "3600000"
	alter(kadm.AlterConfig{Op: kadm.SetConfig, Name: "retention.ms", Value: &hour})
	settle(func() bool { return retention() == hour })
	fmt.Println("retention", retention())
	alter(kadm.AlterConfig{Op: kadm.DeleteConfig, Name: "retention.ms"})
	settle(func() bool { return retention() == "604800000" })
	fmt.Println("retention", retention())

	for number := range 10 {
		record := &kgo.Record{Topic: topic, Value: []byte(strconv.Itoa(number)), Timestamp: time.UnixMilli(1_700_000_000_000 + int64(number))}
		check(cl.ProduceSync(ctx, record).FirstErr())
	}
	offset := func(listed kadm.ListedOffsets, err error) int64 {
		check(err)
		found, _ := listed.Lookup(topic, 0)
		check(found.Err)
		return found.Offset
	}
	offsets := func() string {
		return fmt.Sprintf("%d..%d", offset(adm.ListStartOffsets(ctx, topic)), offset(adm.ListEndOffsets(ctx, topic)))
	}
	fmt.Println("offsets", offsets())
	fmt.Println("offset by time", offset(adm.ListOffsetsAfterMilli(ctx, 1_700_000_000_006, topic)))
	until := kadm.Offsets{}
	until.AddOffset(topic, 0, 4, -1)
	check(must(adm.DeleteRecords(ctx, until)).Error())
	fmt.Println("offsets", offsets())
	check(must(adm.DeleteTopics(ctx, topic)).Error())
	// The first client has sent to the topic and goes on caching it.
	fresh := client(bootstrap)
	defer fresh.Close()
	deleted := func() bool { return !must(kadm.NewClient(fresh).ListTopics(ctx)).Has(topic) }
	settle(deleted)
	fmt.Println("deleted", deleted())
}

func produce(ctx context.Context, bootstrap, topic, codec, file string) {
	codecs := map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}
	// Idempotence is its default.
	cl := client(bootstrap, kgo.RequiredAcks(kgo.AllISRAcks()), kgo.ProducerBatchCompression(codecs[codec]),
		kgo.ProducerLinger(20*time.Millisecond), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	defer cl.Close()
	for number, record := range read(file) {
		record.Topic, record.Partition = topic, int32(number%3)
		cl.Produce(ctx, record, func(record *kgo.Record, err error) {
			check(err)
			if record.Offset != int64(number/3) {
				log.Fatalf("record %d is at %d", number, record.Offset)
			}
		})
	}
	check(cl.Flush(ctx))
}

func consume(ctx context.Context, bootstrap, folder string, arguments []string) {
	type partition struct {
		topic string
		index int32
	}
	wanted, lines, seen := map[partition]int{}, map[partition]*strings.Builder{}, map[partition]int{}
	assignment, left := map[string]map[int32]kgo.Offset{}, 0
	for _, argument := range arguments {
		words := strings.Split(argument, "/")
		key := partition{words[0], int32(must(strconv.Atoi(words[1])))}
		wanted[key], lines[key] = must(strconv.Atoi(words[2])), &strings.Builder{}
		left += wanted[key]
		if assignment[key.topic] == nil {
			assignment[key.topic] = map[int32]kgo.Offset{}
		}
		assignment[key.topic][key.index] = kgo.NewOffset().AtStart()
	}
	cl := client(bootstrap, kgo.ConsumePartitions(assignment))
	defer cl.Close()
	for left > 0 {
		fetches := cl.PollFetches(ctx)
		check(fetches.Err())
		fetches.EachRecord(func(record *kgo.Record) {
			key := partition{record.Topic, record.Partition}
			if record.Offset != int64(seen[key]) {
				log.Fatalf("offset %d after %d records", record.Offset, seen[key])
			}
			seen[key]++
			left--
			lines[key].WriteString(line(record))
		})
	}
	for key, text := range lines {
		if seen[key] != wanted[key] {
			log.Fatalf("%d records in %v", seen[key], key)
		}
		check(os.WriteFile(filepath.Join(folder, fmt.Sprintf("%s-%d", key.topic, key.index)), []byte(text.String()), 0o644))
	}
}

// read parses lines of hexadecimal text: key, value, headers (name=value), separated by tabs; null is no bytes at all.
func read(path string) (records []*kgo.Record) {
	file := must(os.Open(path))
	defer file.Close()
	scanner := bufio.NewScanner(file)
	scanner.Buffer(nil, 16<<20)
	for scanner.Scan() {
		fields := strings.Split(scanner.Text(), "\t")
		record := &kgo.Record{Key: decode(fields[0]), Value: decode(fields[1])}
		for _, field := range fields[2:] {
			name, value, _ := strings.Cut(field, "=")
			record.Headers = append(record.Headers, kgo.RecordHeader{Key: string(decode(name)), Value: decode(value)})
		}
		records = append(records, record)
	}
	check(scanner.Err())
	return records
}

func line(record *kgo.Record) string {
	fields := []string{encode(record.Key), encode(record.Value)}
	for _, header := range record.Headers {
		fields = append(fields, encode([]byte(header.Key))+"="+encode(header.Value))
	}
	return strings.Join(fields, "\t") + "\n"
}

func decode(field string) []byte {
	if field == "null" {
		return nil
	}
	return must(hex.DecodeString(field))
}

func encode(content []byte) string {
	if content == nil {
		return "null"
	}
	return hex.EncodeToString(content)
}

// settle waits a little for what a broker learns a moment later.
func settle(condition func() bool) {
	for range 200 {
		if condition() {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func must[T any](value T, err error) T {
	check(err)
	return value
}
