// What Apache Kafka itself says about its configurations, for the tables of this project to be compared with.
//
//   keys                   every key of a broker: name, type, legal values, whether it changes while it runs, whether an
//                          empty value is taken, default; one a line, separated by tabs, as in kafka_keys.txt
//   topic                  the same of every key of a topic
//   file KEY=VALUE...      for each pair whether a node whose file has it would start: `ok`, or why not

import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;
import java.util.stream.Collectors;

import kafka.server.KafkaConfig;
import org.apache.kafka.common.config.ConfigDef;
import org.apache.kafka.common.config.types.Password;
import org.apache.kafka.server.config.DynamicBrokerConfig;
import org.apache.kafka.server.config.DynamicConfig;
import org.apache.kafka.storage.internals.log.LogConfig;

public class Keys {
    public static void main(String[] arguments) {
        switch (arguments[0]) {
            case "keys" -> brokerKeys();
            case "topic" -> topicKeys();
            case "file" -> {
                for (int index = 1; index < arguments.length; index++) {
                    String[] pair = arguments[index].split("=", 2);
                    System.out.println(arguments[index] + "\t" + inFile(pair[0], pair[1]));
                }
            }
            default -> throw new IllegalArgumentException(arguments[0]);
        }
    }

    private static void brokerKeys() {
        Map<String, String> modes = DynamicBrokerConfig.dynamicConfigUpdateModes();
        Map<String, ConfigDef.ConfigKey> keys = new TreeMap<>(KafkaConfig.configDef().configKeys());
        // Known at run time only.
        DynamicConfig.Broker.configKeys().forEach(keys::putIfAbsent);
        for (ConfigDef.ConfigKey key : keys.values()) {
            boolean onlyDynamic = !KafkaConfig.configDef().configKeys().containsKey(key.name);
            boolean empty = onlyDynamic ? atRunTime(key.name, "") : inFile(key.name, "").equals("ok");
            // What cannot stand in a file has no default there.
            String shown = onlyDynamic ? "-" : shown(key);
            System.out.println(row(key, mode(key.name, modes), empty, shown));
        }
    }

    private static void topicKeys() {
        for (ConfigDef.ConfigKey key : new TreeMap<>(LogConfig.configKeys()).values()) {
            if (key.internalConfig) continue;
            boolean empty;
            try {
                LogConfig.validate(Map.of(key.name, ""));
                empty = true;
            } catch (RuntimeException refused) {
                empty = false;
            }
            System.out.println(row(key, "topic", empty, shown(key)));
        }
    }

    private static String row(ConfigDef.ConfigKey key, String mode, boolean empty, String shown) {
        String type = key.type.toString().toLowerCase();
        return String.join("\t", key.name, type, legal(key), mode, empty ? "empty" : "refused", shown);
    }

    private static String mode(String name, Map<String, String> modes) {
        Properties one = new Properties();
        one.put(name, "");
        if (!DynamicBrokerConfig.securityConfigsWithoutListenerPrefix(one).isEmpty()) return "listener";
        return switch (modes.getOrDefault(name, "read-only")) {
            case "per-broker" -> "broker";
            case "cluster-wide" -> "cluster";
            default -> "fixed";
        };
    }

    /** `low..high` of a number, the words of a text, `any`. */
    private static String legal(ConfigDef.ConfigKey key) {
        String text = String.valueOf(key.validator).replace("(case insensitive) ", "~");
        return switch (key.type) {
            case INT, LONG, SHORT, DOUBLE -> text.startsWith("[")
                ? text.replaceAll("[\\[\\]]", "").replaceAll(",?\\.\\.\\.,?", "..").replace(" or ", "|")
                : "any";
            default -> text.matches("~?\\[.+\\]") ? text.replaceAll("[\\[\\]]", "").replace(", ", ",") : "any";
        };
    }

    /** The default as text, `-` where there is none. */
    private static String shown(ConfigDef.ConfigKey key) {
        Object value = key.defaultValue;
        if (value == null || value == ConfigDef.NO_DEFAULT_VALUE) return "-";
        if (value instanceof Class<?> type) return type.getName();
        if (value instanceof Password secret) return secret.value();
        if (value instanceof List<?> list) return list.stream().map(Object::toString).collect(Collectors.joining(","));
        return value.toString();
    }

    private static boolean atRunTime(String name, String value) {
        Properties one = new Properties();
        one.put(name, value);
        try {
            DynamicBrokerConfig.validateConfigs(one, true);
            return true;
        } catch (RuntimeException refused) {
            return false;
        }
    }

    private static String inFile(String name, String value) {
        Map<String, String> file = new LinkedHashMap<>();
        file.put("process.roles", "broker,controller");
        file.put("node.id", "1");
        file.put("controller.quorum.voters", "1@localhost:9093");
        file.put("controller.listener.names", "CONTROLLER");
        file.put("listeners", "PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093");
        file.put("log.dirs", "/nowhere");
        file.put(name, value);
        try {
            new KafkaConfig(file);
            return "ok";
        } catch (RuntimeException refused) {
            return "refused: " + String.valueOf(refused.getMessage()).replace('\n', ' ');
        }
    }
}
