package sluicebox;

import java.io.IOException;
import java.io.Serializable;
import java.time.Duration;
import java.util.Iterator;

import org.apache.flink.api.common.state.ListState;
import org.apache.flink.api.common.state.ListStateDescriptor;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.java.functions.KeySelector;
import org.apache.flink.runtime.state.StateInitializationContext;
import org.apache.flink.runtime.state.StateSnapshotContext;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.core.JsonProcessingException;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.node.ObjectNode;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.operators.AbstractStreamOperator;
import org.apache.flink.streaming.api.operators.BoundedOneInput;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.api.common.operators.ProcessingTimeService.ProcessingTimeCallback;
import org.apache.flink.util.OutputTag;

/**
 * An operator of a Flink job whose work a pipeline of sluicebox does: JSON goes in and comes out.
 *
 * <p>Each event of the stream and each result counts once, though job and node may be killed at
 * any moment, and neither knows of the other's checkpoints:
 *
 * <ul>
 *   <li>Before a barrier passes, all events in front of it are on the node's disk. After a
 *       restart Flink replays those behind its last checkpoint; the node knows them by their ids
 *       and does not take them again.
 *   <li>The place up to which results were read is in the operator's state. After a restart those
 *       behind it are read once more, and nothing that Flink kept has seen them.
 * </ul>
 *
 * <p>Ids have to be the same in each replay, so they come from the events. The node remembers them
 * for ten minutes: a job that stays away for longer may count some twice.
 *
 * <p>One instance serves the whole job, as a page has the results of all partitions; work is
 * spread by the pipeline's own partitions.
 */
public final class SluiceboxOperator extends AbstractStreamOperator<String>
        implements OneInputStreamOperator<String, String>, BoundedOneInput, ProcessingTimeCallback {
    private static final long serialVersionUID = 1L;

    /** Lines that the pipeline refused, with the reason. */
    public static final OutputTag<String> REFUSED = new OutputTag<>("refused", Types.STRING);

    private static final int BATCH_EVENTS_MAX = 512;
    private static final int BATCH_CHARS_MAX = 256 * 1024;
    private static final long TURN_MILLIS = 20;

    /** How long nothing must come before a stream that ended is taken to be done. */
    private static final Duration SETTLED = Duration.ofSeconds(1);

    private final Settings settings;

    private transient Pipeline pipeline;
    private transient StringBuilder batch;
    private transient int batched;
    private transient ListState<String> kept;
    private transient String cursor;

    private SluiceboxOperator(Settings settings) {
        this.settings = settings;
    }

    /**
     * Where the pipeline is and what is read of it.
     *
     * @param address the pipeline's address, {@code http://HOST:PORT/v1/tenants/T/pipelines/P}
     * @param token a token with the scopes {@code ingest} and {@code read}, or nothing
     * @param output the output whose results go on in the job
     * @param source what the ids are unique in, the same in all runs of the job
     * @param id the id of an event
     */
    public record Settings(
            String address,
            String token,
            String output,
            String source,
            KeySelector<String, String> id)
            implements Serializable {}

    /** The results of {@code events} as a stream. */
    public static SingleOutputStreamOperator<String> of(
            DataStream<String> events, Settings settings) {
        return events.transform("sluicebox", Types.STRING, new SluiceboxOperator(settings))
                .setParallelism(1)
                .setMaxParallelism(1);
    }

    @Override
    public void initializeState(StateInitializationContext context) throws Exception {
        super.initializeState(context);
        kept = context.getOperatorStateStore()
                .getListState(new ListStateDescriptor<>("cursor", Types.STRING));
        Iterator<String> restored = kept.get().iterator();
        // A first run begins at the oldest result and not at the latest: it may be the second try
        // of one that sent events and came to no checkpoint.
        cursor = restored.hasNext() ? restored.next() : "oldest";
    }

    @Override
    public void open() throws Exception {
        super.open();
        pipeline = new Pipeline(settings.address(), settings.token());
        batch = new StringBuilder();
        batched = 0;
        nextTurn();
    }

    @Override
    public void processElement(StreamRecord<String> element) throws Exception {
        ObjectNode event = Pipeline.JSON.createObjectNode();
        event.put("specversion", "1.0").put("type", "flink.element");
        try {
            event.set("data", Pipeline.JSON.readTree(element.getValue()));
        } catch (JsonProcessingException no) {
            refuse("ingest.json", element.getValue());
            return;
        }
        event.put("source", settings.source()).put("id", settings.id().getKey(element.getValue()));
        batch.append(event).append('\n');
        batched += 1;
        if (batched >= BATCH_EVENTS_MAX || batch.length() >= BATCH_CHARS_MAX) {
            send();
            emit();
        }
    }

    @Override
    public void onProcessingTime(long time) throws Exception {
        send();
        emit();
        nextTurn();
    }

    @Override
    public void prepareSnapshotPreBarrier(long checkpoint) throws Exception {
        send();
    }

    @Override
    public void snapshotState(StateSnapshotContext context) throws Exception {
        super.snapshotState(context);
        kept.clear();
        kept.add(cursor);
    }

    /** What a timer or a watermark brings later than {@link #SETTLED} is for the next run. */
    @Override
    public void endInput() throws Exception {
        send();
        long last = System.nanoTime();
        while (System.nanoTime() - last < SETTLED.toNanos()) {
            if (emit() || pipeline.waiting() > 0) {
                last = System.nanoTime();
            }
            Thread.sleep(TURN_MILLIS);
        }
    }

    private void nextTurn() {
        long now = getProcessingTimeService().getCurrentProcessingTime();
        getProcessingTimeService().registerTimer(now + TURN_MILLIS, this);
    }

    /** What never becomes an event leaves by the side, or the job would come back to it for ever. */
    private void refuse(String code, String line) {
        ObjectNode refused = Pipeline.JSON.createObjectNode().put("code", code).put("line", line);
        output.collect(REFUSED, new StreamRecord<>(refused.toString()));
    }

    private void send() throws IOException, InterruptedException {
        if (batched == 0) {
            return;
        }
        for (String refused : pipeline.send(batch.toString())) {
            output.collect(REFUSED, new StreamRecord<>(refused));
        }
        batch.setLength(0);
        batched = 0;
    }

    /** Whether there was anything. */
    private boolean emit() throws IOException, InterruptedException {
        boolean any = false;
        Pipeline.Page page;
        do {
            page = pipeline.read(settings.output(), cursor);
            page.results().forEach(result -> output.collect(new StreamRecord<>(result)));
            cursor = page.cursor();
            any |= !page.results().isEmpty();
        } while (page.isFull());
        return any;
    }
}
