// Runs Kafka's command line tools one after the other in one virtual machine, each as if it had one of its own: own
// arguments, own standard input, captured output, and an exit that ends the tool instead of the machine. Starting a
// machine per call would cost more than all calls together.
//
// Standard input brings requests, standard output takes answers, both as frames of big-endian 4-byte integers and
// byte strings with their length in front:
//   request: class, number of arguments, arguments, input, seconds to end in
//   answer: exit code, output, errors, log lines
//
// Run as: java --add-opens java.base/java.lang=ALL-UNNAMED -cp 'LIBS/*' ToolDriver.java

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.EOFException;
import java.io.FileDescriptor;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.PrintStream;
import java.lang.reflect.Field;
import java.lang.reflect.InvocationTargetException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.common.utils.Exit;
import org.apache.logging.log4j.Level;
import org.apache.logging.log4j.core.LogEvent;
import org.apache.logging.log4j.core.LoggerContext;
import org.apache.logging.log4j.core.appender.AbstractAppender;
import org.apache.logging.log4j.core.config.Property;

public class ToolDriver {
    /** One call of a tool. Every thread that it starts inherits it, and so finds its own streams. */
    static final class Call {
        final ByteArrayOutputStream out = new ByteArrayOutputStream();
        final ByteArrayOutputStream err = new ByteArrayOutputStream();
        final StringBuffer log = new StringBuffer();
        final InputStream in;
        final List<Thread> hooks = new ArrayList<>();
        final CountDownLatch ended = new CountDownLatch(1);
        private int code;
        private boolean exits;

        Call(byte[] input) {
            in = new ByteArrayInputStream(input);
        }

        /** The first exit counts, as in a machine of its own. */
        synchronized void exit(int code) {
            if (!exits) {
                exits = true;
                this.code = code;
                ended.countDown();
            }
        }
    }

    static final InheritableThreadLocal<Call> CALL = new InheritableThreadLocal<>();
    static final Call NOBODY = new Call(new byte[0]);

    static Call call() {
        Call call = CALL.get();
        return call == null ? NOBODY : call;
    }

    public static void main(String[] arguments) throws Exception {
        DataInputStream requests = new DataInputStream(new FileInputStream(FileDescriptor.in));
        DataOutputStream answers = new DataOutputStream(new FileOutputStream(FileDescriptor.out));
        routeStreams();
        routeExits();
        routeLog();
        while (true) {
            String name;
            try {
                name = text(requests);
            } catch (EOFException end) {
                System.exit(0);
                return;
            }
            String[] words = new String[requests.readInt()];
            for (int i = 0; i < words.length; i++) {
                words[i] = text(requests);
            }
            Call call = run(name, words, bytes(requests), requests.readInt());
            answers.writeInt(call.code);
            for (byte[] part : List.of(call.out.toByteArray(), call.err.toByteArray(), call.log.toString().getBytes(StandardCharsets.UTF_8))) {
                answers.writeInt(part.length);
                answers.write(part);
            }
            answers.flush();
        }
    }

    static Call run(String name, String[] arguments, byte[] input, int seconds) throws InterruptedException {
        Call call = new Call(input);
        ThreadGroup group = new ThreadGroup(name);
        Thread main = new Thread(group, () -> {
            CALL.set(call);
            try {
                Class.forName(name).getMethod("main", String[].class).invoke(null, (Object) arguments);
            } catch (InvocationTargetException thrown) {
                System.err.print("Exception in thread \"main\" ");
                thrown.getCause().printStackTrace();
                call.exit(1);
            } catch (ReflectiveOperationException missing) {
                System.err.println("Error: Could not find or load main class " + name);
                call.exit(1);
            }
        }, "main");
        main.start();
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(seconds);
        // A machine ends by an exit or with its last thread that is no daemon.
        while (!call.ended.await(20, TimeUnit.MILLISECONDS)) {
            if (!working(group)) {
                call.exit(0);
            } else if (System.nanoTime() > deadline) {
                call.log.append("the tool did not end\n");
                call.exit(124);
            }
        }
        call.hooks.addAll(takeHooks(group));
        for (Thread hook : call.hooks) {
            hook.start();
        }
        for (Thread hook : call.hooks) {
            hook.join(10_000);
        }
        return call;
    }

    /** What a tool has registered with the machine itself to be run at its end. */
    static List<Thread> takeHooks(ThreadGroup group) {
        try {
            Field field = Class.forName("java.lang.ApplicationShutdownHooks").getDeclaredField("hooks");
            field.setAccessible(true);
            List<Thread> hooks = new ArrayList<>();
            for (Object hook : ((Map<?, ?>) field.get(null)).keySet()) {
                if (((Thread) hook).getThreadGroup() == group) {
                    hooks.add((Thread) hook);
                }
            }
            hooks.forEach(Runtime.getRuntime()::removeShutdownHook);
            return hooks;
        } catch (ReflectiveOperationException changed) {
            throw new IllegalStateException(changed);
        }
    }

    static boolean working(ThreadGroup group) {
        Thread[] threads = new Thread[group.activeCount() + 16];
        int count = group.enumerate(threads);
        for (int i = 0; i < count; i++) {
            if (!threads[i].isDaemon()) {
                return true;
            }
        }
        return false;
    }

    static void routeStreams() {
        System.setOut(new PrintStream(new OutputStream() {
            @Override public void write(int b) { call().out.write(b); }
            @Override public void write(byte[] b, int from, int length) { call().out.write(b, from, length); }
        }, true, StandardCharsets.UTF_8));
        System.setErr(new PrintStream(new OutputStream() {
            @Override public void write(int b) { call().err.write(b); }
            @Override public void write(byte[] b, int from, int length) { call().err.write(b, from, length); }
        }, true, StandardCharsets.UTF_8));
        System.setIn(new InputStream() {
            @Override public int read() throws IOException { return call().in.read(); }
            @Override public int read(byte[] b, int from, int length) throws IOException { return call().in.read(b, from, length); }
        });
    }

    /** An exit never returns: nothing behind it runs, no `finally` and no `catch`. The thread sleeps for ever. */
    static void routeExits() {
        Exit.Procedure procedure = (code, message) -> {
            call().exit(code);
            while (true) {
                try {
                    Thread.sleep(Long.MAX_VALUE);
                } catch (InterruptedException again) {
                    // It still must not return.
                }
            }
        };
        Exit.setExitProcedure(procedure);
        Exit.setHaltProcedure(procedure);
        Exit.setShutdownHookAdder((name, hook) -> {
            Thread thread = new Thread(hook, name);
            thread.setDaemon(true);
            call().hooks.add(thread);
        });
    }

    /** Warnings of the clients inside the tools, kept apart from what the tools print. */
    static void routeLog() {
        LoggerContext context = LoggerContext.getContext(false);
        AbstractAppender appender = new AbstractAppender("calls", null, null, true, Property.EMPTY_ARRAY) {
            @Override public void append(LogEvent event) {
                String logger = event.getLoggerName();
                String line = event.getLevel() + " " + logger.substring(logger.lastIndexOf('.') + 1) + " " + event.getMessage().getFormattedMessage();
                call().log.append(line).append(event.getThrown() == null ? "" : " " + event.getThrown()).append('\n');
            }
        };
        appender.start();
        var root = context.getConfiguration().getRootLogger();
        root.getAppenders().keySet().forEach(root::removeAppender);
        root.setLevel(Level.WARN);
        root.addAppender(appender, Level.WARN, null);
        context.updateLoggers();
    }

    static byte[] bytes(DataInputStream in) throws IOException {
        byte[] bytes = new byte[in.readInt()];
        in.readFully(bytes);
        return bytes;
    }

    static String text(DataInputStream in) throws IOException {
        return new String(bytes(in), StandardCharsets.UTF_8);
    }
}
