package sluicebox;

import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;

import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.ObjectMapper;

/**
 * A pipeline of sluicebox, over HTTP: events go in, results come out by pages.
 *
 * <p>What may be asked again is asked again, with growing pauses, for {@link #PATIENCE}; after
 * that, and for all that no repetition mends, an {@link IOException} says why.
 */
final class Pipeline {
    /** How long one request is repeated while the node cannot answer it. */
    private static final Duration PATIENCE = Duration.ofMinutes(1);

    private static final Duration PAUSE_MIN = Duration.ofMillis(50);
    private static final Duration PAUSE_MAX = Duration.ofSeconds(2);
    private static final Duration REQUEST_TIME_MAX = Duration.ofSeconds(30);

    /** Results of a page; with 64 KiB each, the most an event has by default, that is 16 MiB. */
    private static final int PAGE_RESULTS = 256;

    static final ObjectMapper JSON = new ObjectMapper();

    private final HttpClient client =
            HttpClient.newBuilder().connectTimeout(Duration.ofSeconds(5)).build();
    private final String address;
    private final String token;

    /** The pipeline at an address, {@code …/v1/tenants/T/pipelines/P}; an empty token is none. */
    Pipeline(String address, String token) {
        this.address = address;
        this.token = token;
    }

    /** Lines that were refused, with the reason; all others are on the node's disk. */
    List<String> send(String lines) throws IOException, InterruptedException {
        HttpRequest.Builder request = request("/events")
                .header("content-type", "application/cloudevents+ndjson")
                .POST(HttpRequest.BodyPublishers.ofString(lines));
        JsonNode reply = JSON.readTree(answered(request.build()).body());
        List<String> refused = new ArrayList<>();
        reply.path("errors").forEach(error -> refused.add(error.toString()));
        long more = reply.path("rejected").asLong() - refused.size();
        if (more > 0) {
            // The reply lists the first ones.
            refused.add(JSON.createObjectNode().put("more", more).toString());
        }
        return refused;
    }

    /** What is behind {@code cursor} in an output: a page of it, which is empty at the end. */
    Page read(String output, String cursor) throws IOException, InterruptedException {
        String query = "?cursor=" + cursor + "&limit=" + PAGE_RESULTS;
        HttpResponse<String> reply = answered(request("/outputs/" + output + query).GET().build());
        List<String> results = new ArrayList<>();
        for (String line : reply.body().lines().toList()) {
            results.add(JSON.readTree(line).path("data").toString());
        }
        String next = reply.headers().firstValue("sluicebox-cursor").orElse(cursor);
        return new Page(results, next);
    }

    /** How many events wait for a stage. */
    long waiting() throws IOException, InterruptedException {
        JsonNode reply = JSON.readTree(answered(request("").GET().build()).body());
        long waiting = 0;
        for (JsonNode partition : reply.path("partition")) {
            waiting += partition.path("inbox-events").asLong();
        }
        return waiting;
    }

    private HttpRequest.Builder request(String rest) {
        HttpRequest.Builder request =
                HttpRequest.newBuilder(URI.create(address + rest)).timeout(REQUEST_TIME_MAX);
        return token.isEmpty() ? request : request.header("authorization", "Bearer " + token);
    }

    /** The answer of 2xx. Sending again is safe: events have ids, and all else only reads. */
    private HttpResponse<String> answered(HttpRequest request)
            throws IOException, InterruptedException {
        long end = System.nanoTime() + PATIENCE.toNanos();
        Duration pause = PAUSE_MIN;
        while (true) {
            String why;
            try {
                HttpResponse<String> reply =
                        client.send(request, HttpResponse.BodyHandlers.ofString());
                if (reply.statusCode() / 100 == 2 || isRefusedWhole(reply)) {
                    return reply;
                }
                why = reply.statusCode() + " " + reply.body();
                // 429: there is no room at the moment; 5xx: the node starts, drains, or moved.
                if (reply.statusCode() != 429 && reply.statusCode() / 100 != 5) {
                    throw new Refused(request.uri() + ": " + why);
                }
            } catch (Refused refused) {
                throw refused;
            } catch (IOException broken) {
                why = broken.toString();
            }
            if (System.nanoTime() > end) {
                throw new IOException(request.uri() + " for " + PATIENCE + ": " + why);
            }
            Thread.sleep(pause.toMillis());
            Duration doubled = pause.multipliedBy(2);
            pause = doubled.compareTo(PAUSE_MAX) < 0 ? doubled : PAUSE_MAX;
        }
    }

    /** Every line was bad: the document lists them as a reply does that took some. */
    private static boolean isRefusedWhole(HttpResponse<String> reply) throws IOException {
        return reply.statusCode() == 400
                && JSON.readTree(reply.body()).path("code").asText().equals("ingest.rejected");
    }

    /** An answer that would be the same if it were asked for again. */
    private static final class Refused extends IOException {
        private static final long serialVersionUID = 1L;

        Refused(String message) {
            super(message);
        }
    }

    /** Results as JSON, and the cursor behind them. */
    record Page(List<String> results, String cursor) {
        boolean isFull() {
            return results.size() >= PAGE_RESULTS;
        }
    }
}
