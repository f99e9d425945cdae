// Sarama, of a version that leaves the largest timestamp in the header of its batches at -1, as its users use it.
//
//	sarama BOOTSTRAP TOPIC CODEC MILLISECONDS...    sends one record with each timestamp, and prints its offset, or the error
package main

import (
	"errors"
	"fmt"
	"log"
	"os"
	"strconv"
	"time"

	"github.com/IBM/sarama"
)

func main() {
	log.SetFlags(0)
	bootstrap, topic, codec := os.Args[1], os.Args[2], os.Args[3]
	codecs := map[string]sarama.CompressionCodec{
		"none": sarama.CompressionNone, "gzip": sarama.CompressionGZIP, "snappy": sarama.CompressionSnappy,
		"lz4": sarama.CompressionLZ4, "zstd": sarama.CompressionZSTD,
	}
	config := sarama.NewConfig()
	config.Version = sarama.V2_8_0_0
	config.Producer.Return.Successes = true
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Producer.Retry.Max = 0
	config.Producer.Compression = codecs[codec]
	producer, err := sarama.NewSyncProducer([]string{bootstrap}, config)
	if err != nil {
		log.Fatal(err)
	}
	defer producer.Close()
	for _, argument := range os.Args[4:] {
		milliseconds, err := strconv.ParseInt(argument, 10, 64)
		if err != nil {
			log.Fatal(err)
		}
		_, offset, err := producer.SendMessage(&sarama.ProducerMessage{
			Topic: topic, Partition: 0, Key: sarama.StringEncoder("k"), Value: sarama.StringEncoder(argument),
			Timestamp: time.UnixMilli(milliseconds),
		})
		var code sarama.KError
		switch {
		case errors.As(err, &code):
			fmt.Println("error", int16(code))
		case err != nil:
			log.Fatal(err)
		default:
			fmt.Println("offset", offset)
		}
	}
}
