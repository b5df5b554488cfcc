package clients;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.azure.core.credential.AccessToken;
import java.sql.DriverManager;
import java.sql.SQLException;
import java.time.Duration;
import java.time.Instant;
import java.util.LinkedHashMap;
import java.util.Map;
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
            var way = WAYS.get(name).apply(identity, identity);
            OPEN.put(name + identity, way);
            assertEquals(identity, way.login().user());
        });
    }

    @TestFactory
    @Order(3)
    Stream<DynamicTest> logsInAgainAfterItsTokenExpires() {
        return each((name, identity) -> {
            waitUntilExpired();
            var deadline = Instant.now().plusSeconds(90);
            Session session = null;
            while (session == null || session.started().isBefore(kept.getExpiresAt().toInstant())) {
                assertTrue(Instant.now().isBefore(deadline), "no new connection in 90 seconds");
                try {
                    session = OPEN.get(name + identity).login();
                } catch (Exception error) {
                    // azure-identity returns a cached token up to its last moment, so it can expire on its way to the server.
                    if (!messages(error).contains("The access token has expired")) {
                        throw error;
                    }
                    continue;
                }
                assertEquals(identity, session.user());
            }
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
            String message = rejection(name, "reporting", "shop-api");
            assertTrue(message.contains("Service principal oid mismatch for role \"reporting\""), message);
        }));
    }

    @Test
    @Order(6)
    void pgJDBCCancels() throws Exception {
        try (var connection = DriverManager.getConnection(Way.URL, Way.settings("shop-api", "shop-api")); var statement = connection.createStatement()) {
            statement.setQueryTimeout(1);
            var error = assertThrows(SQLException.class, () -> statement.execute("select pg_sleep(300)"));
            assertEquals("57014", error.getSQLState());
            assertEquals("shop-api", Session.of(connection).user());
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
