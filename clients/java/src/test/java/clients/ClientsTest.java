package clients;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.azure.core.credential.AccessToken;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.SQLException;
import java.sql.Statement;
import java.time.Duration;
import java.time.Instant;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.CompletableFuture;
import java.util.function.BiFunction;
import java.util.function.Supplier;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.MethodOrderer;
import org.junit.jupiter.api.Order;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestFactory;
import org.junit.jupiter.api.TestMethodOrder;
import org.postgresql.PGConnection;

/** Each way logs in before and after its first token expires, and is rejected when it should be. */
@TestMethodOrder(MethodOrderer.OrderAnnotation.class)
class ClientsTest {
    static final String DATABASE = "https://ossrdbms-aad.database.windows.net";
    static final Map<String, BiFunction<String, String, Way>> WAYS = new LinkedHashMap<>();

    static {
        WAYS.put("pgJDBC with azure-identity-extensions", Way::pgJDBC);
        WAYS.put("pgJDBC with azure-identity", Way::password);
        WAYS.put("HikariCP with azure-identity-extensions", Way::hikari);
        WAYS.put("Spring Cloud Azure", Way::spring);
    }

    static final Map<String, Way> OPEN = new LinkedHashMap<>();
    static AccessToken kept; // a token that a program has kept since its start

    @Test
    @Order(1)
    void aTokenIsKept() {
        kept = Providers.token(Providers.managedIdentity(), DATABASE);
    }

    @TestFactory
    @Order(2)
    Stream<DynamicTest> logsIn() {
        return each((name, identity) -> {
            var way = unlessExpired(() -> WAYS.get(name).apply(identity, identity));
            OPEN.put(name + identity, way);
            assertEquals(identity, unlessExpired(way::login).user());
        });
    }

    @TestFactory
    @Order(3)
    Stream<DynamicTest> logsInAgainAfterItsTokenExpires() {
        return each((name, identity) -> {
            waitUntilExpired();
            var deadline = Instant.now().plusSeconds(90);
            Session session;
            do {
                assertTrue(Instant.now().isBefore(deadline), "no new connection in 90 seconds");
                session = unlessExpired(OPEN.get(name + identity)::login);
                assertEquals(identity, session.user());
            } while (session.started().isBefore(kept.getExpiresAt().toInstant()));
        });
    }

    @TestFactory
    @Order(4)
    Stream<DynamicTest> isRejectedWithATokenThatIs() {
        Map<String, Supplier<String>> tokens = new LinkedHashMap<>();
        tokens.put("expired: The access token has expired. Acquire a new token and try again.", () -> kept.getToken());
        tokens.put("forged: An error occurred while validating the access token", () -> kept.getToken().substring(0, kept.getToken().length() - 40) + "A".repeat(40));
        tokens.put("cut: The access token has invalid format", () -> kept.getToken().substring(0, 400));
        tokens.put("a password: An error occurred while validating the access token", () -> "password");
        tokens.put("for another resource: The access token does not have a valid audience claim", () -> Providers.token(Providers.managedIdentity(), "https://management.azure.com").getToken());
        return WAYS.keySet().stream().filter(name -> name.startsWith("pgJDBC")).flatMap(name -> tokens.entrySet().stream()
                .map(token -> DynamicTest.dynamicTest(name + ", " + token.getKey(), () -> {
                    Providers.Fixed.token = token.getValue().get();
                    String message = rejection(name, "shop-api", "fixed");
                    assertTrue(message.contains(token.getKey().split(": ", 2)[1]), message);
                })));
    }

    @TestFactory
    @Order(5)
    Stream<DynamicTest> isRejectedAsAnotherRole() {
        return WAYS.keySet().stream().map(name -> DynamicTest.dynamicTest(name, () -> {
            String message;
            do {
                message = rejection(name, "reporting", "shop-api");
            } while (message.contains(EXPIRED)); // see unlessExpired
            assertTrue(message.contains("Service principal oid mismatch for role \"reporting\""), message);
        }));
    }

    @Test
    @Order(6)
    void pgJDBCCancels() throws Exception {
        Callable<Connection> open = () -> DriverManager.getConnection(Way.URL, Way.settings("shop-api", "shop-api"));
        try (var connection = unlessExpired(open); var watch = unlessExpired(open); var statement = connection.createStatement()) {
            int pid = connection.unwrap(PGConnection.class).getBackendPID();
            var canceled = CompletableFuture.runAsync(() -> cancelWhenItRuns(statement, pid, watch));
            var error = assertThrows(SQLException.class, () -> statement.execute("select pg_sleep(300)"));
            canceled.get();
            assertEquals("57014", error.getSQLState());
            assertEquals("shop-api", Session.of(connection).user());
        }
    }

    /** Cancels a statement as soon as its session sleeps. */
    static void cancelWhenItRuns(Statement statement, int pid, Connection watch) {
        String query = "select wait_event = 'PgSleep' from pg_stat_activity where pid = " + pid;
        try (var other = watch.createStatement()) {
            for (boolean runs = false; !runs;) {
                try (var rows = other.executeQuery(query)) {
                    runs = rows.next() && rows.getBoolean(1);
                }
            }
            statement.cancel();
        } catch (SQLException error) {
            throw new IllegalStateException(error);
        }
    }

    @AfterAll
    static void close() throws Exception {
        for (var way : OPEN.values()) {
            way.close();
        }
    }

    interface Check {
        void of(String name, String identity) throws Exception;
    }

    static Stream<DynamicTest> each(Check check) {
        return WAYS.keySet().stream().flatMap(name -> Stream.of("shop-api", "reporting")
                .map(identity -> DynamicTest.dynamicTest(name + " as " + identity, () -> check.of(name, identity))));
    }

    static final String EXPIRED = "The access token has expired";

    /** Repeats what fails because azure-identity returned a cached token in its last moment, which expired on its way to the server. */
    static <T> T unlessExpired(Callable<T> attempt) throws Exception {
        while (true) {
            try {
                return attempt.call();
            } catch (Exception error) {
                if (!messages(error).contains(EXPIRED)) {
                    throw error;
                }
            }
        }
    }

    /** Returns what a way reports of a login that fails, with its causes. */
    static String rejection(String name, String user, String identity) {
        return messages(assertThrows(Exception.class, () -> {
            try (var way = WAYS.get(name).apply(user, identity)) {
                way.login();
            }
        }));
    }

    /** Returns the messages of an exception and its causes. */
    static String messages(Throwable error) {
        var messages = new StringBuilder();
        for (Throwable cause = error; cause != null; cause = cause.getCause()) {
            messages.append(cause.getMessage()).append('\n');
        }
        return messages.toString();
    }

    static void waitUntilExpired() throws InterruptedException {
        var rest = Duration.between(Instant.now(), kept.getExpiresAt().toInstant().plusSeconds(1));
        if (!rest.isNegative()) {
            Thread.sleep(rest.toMillis());
        }
    }
}
