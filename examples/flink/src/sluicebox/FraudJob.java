package sluicebox;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Comparator;
import java.util.Map;
import java.util.Optional;
import java.util.stream.Stream;

import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.serialization.SimpleStringEncoder;
import org.apache.flink.configuration.CheckpointingOptions;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.configuration.ExternalizedCheckpointRetention;
import org.apache.flink.configuration.RestOptions;
import org.apache.flink.configuration.StateRecoveryOptions;
import org.apache.flink.connector.file.sink.FileSink;
import org.apache.flink.connector.file.src.FileSource;
import org.apache.flink.connector.file.src.reader.TextLineInputFormat;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.sink.filesystem.rollingpolicies.OnCheckpointRollingPolicy;
import org.apache.flink.util.ParameterTool;

/**
 * Payments from the files of a folder, alarms into files of another; what makes alarms of payments
 * is the pipeline of the example {@code fraud}.
 *
 * <p>Files of results are finished with a checkpoint, so what is in them is there once.
 */
public final class FraudJob {
    private FraudJob() {}

    /** Runs until it is stopped; goes on from the newest checkpoint that there is. */
    public static void main(String[] arguments) throws Exception {
        ParameterTool options = ParameterTool.fromArgs(arguments);
        Path checkpoints = Path.of(options.getRequired("checkpoints")).toAbsolutePath();
        StreamExecutionEnvironment job =
                StreamExecutionEnvironment.getExecutionEnvironment(configuration(checkpoints));
        job.setParallelism(1);
        job.enableCheckpointing(options.getLong("checkpoint-millis", 1000));

        FileSource<String> files = FileSource.forRecordStreamFormat(
                        new TextLineInputFormat(), path(options.getRequired("in")))
                .monitorContinuously(Duration.ofMillis(200))
                .build();
        DataStream<String> payments =
                job.fromSource(files, WatermarkStrategy.noWatermarks(), "payments").uid("payments");

        SluiceboxOperator.Settings settings = new SluiceboxOperator.Settings(
                options.getRequired("pipeline"),
                Optional.ofNullable(System.getenv("SLUICEBOX_TOKEN")).orElse(""),
                "alerts",
                "flink/fraud",
                FraudJob::id);
        SingleOutputStreamOperator<String> alerts =
                SluiceboxOperator.of(payments, settings).uid("fraud");

        alerts.sinkTo(sink(options.getRequired("out"))).uid("alerts");
        alerts.getSideOutput(SluiceboxOperator.REFUSED)
                .sinkTo(sink(options.getRequired("refused")))
                .uid("refused");
        job.execute("fraud");
    }

    /** A card pays once at a time. */
    private static String id(String payment) throws IOException {
        var read = Pipeline.JSON.readTree(payment);
        return read.path("card").asText() + "@" + read.path("at").asText();
    }

    private static FileSink<String> sink(String folder) {
        return FileSink.forRowFormat(path(folder), new SimpleStringEncoder<String>("UTF-8"))
                .withRollingPolicy(OnCheckpointRollingPolicy.build())
                .build();
    }

    private static org.apache.flink.core.fs.Path path(String folder) {
        return new org.apache.flink.core.fs.Path(Path.of(folder).toAbsolutePath().toUri());
    }

    private static Configuration configuration(Path checkpoints) throws IOException {
        Configuration configuration = Configuration.fromMap(Map.of());
        configuration.set(
                CheckpointingOptions.CHECKPOINTS_DIRECTORY, checkpoints.toUri().toString());
        configuration.set(
                CheckpointingOptions.EXTERNALIZED_CHECKPOINT_RETENTION,
                ExternalizedCheckpointRetention.RETAIN_ON_CANCELLATION);
        // Nobody but this machine sees the job, and two jobs do not want the same port.
        configuration.set(RestOptions.BIND_ADDRESS, "127.0.0.1");
        configuration.set(RestOptions.BIND_PORT, "0");
        newest(checkpoints).ifPresent(newest ->
                configuration.set(StateRecoveryOptions.SAVEPOINT_PATH, newest.toUri().toString()));
        return configuration;
    }

    /** The newest checkpoint that is whole: its metadata is written last. */
    private static Optional<Path> newest(Path checkpoints) throws IOException {
        if (!Files.isDirectory(checkpoints)) {
            return Optional.empty();
        }
        try (Stream<Path> found = Files.walk(checkpoints, 3)) {
            return found.filter(path -> path.endsWith("_metadata"))
                    .max(Comparator.comparing(FraudJob::modified))
                    .map(Path::getParent);
        }
    }

    private static java.nio.file.attribute.FileTime modified(Path path) {
        try {
            return Files.getLastModifiedTime(path);
        } catch (IOException gone) {
            throw new UncheckedIOException(gone);
        }
    }
}
