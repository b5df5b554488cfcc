// Uses pgJDBC through the proxy, which libpq's variables describe: java -cp postgresql.jar ProxyClient.java
import java.io.StringReader;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.SQLException;
import java.util.Properties;
import org.postgresql.PGConnection;

class ProxyClient {
    static Connection connect() throws SQLException {
        var env = System.getenv();
        var settings = new Properties();
        settings.setProperty("user", env.get("PGUSER"));
        settings.setProperty("password", env.get("PGPASSWORD"));
        return DriverManager.getConnection(
                "jdbc:postgresql://" + env.get("PGHOST") + ":" + env.get("PGPORT") + "/" + env.get("PGDATABASE"), settings);
    }

    static String query(Connection connection, String text) throws SQLException {
        try (var statement = connection.prepareStatement(text); var rows = statement.executeQuery()) {
            rows.next();
            return rows.getString(1);
        }
    }

    static void check(boolean ok, String what) {
        if (!ok) throw new AssertionError(what);
    }

    public static void main(String[] args) throws Exception {
        var user = System.getenv("PGUSER");
        try (var connection = connect()) {
            check(query(connection, "select session_user").equals(user), "user");
            for (int i = 0; i < 10; i++) query(connection, "select " + i); // prepared on the server from the fifth on

            var copy = connection.unwrap(PGConnection.class).getCopyAPI();
            connection.createStatement().execute("create temporary table copied (n int)");
            check(copy.copyIn("copy copied from stdin", new StringReader("1\n2\n3\n")) == 3, "copy");

            try (var insert = connection.prepareStatement("insert into copied values (?)")) {
                for (int i = 0; i < 1000; i++) {
                    insert.setInt(1, i);
                    insert.addBatch();
                }
                check(insert.executeBatch().length == 1000, "batch");
            }

            try (var slow = connection.createStatement()) {
                slow.setQueryTimeout(1); // by a cancel request
                slow.execute("select pg_sleep(600)");
                check(false, "the query was not canceled");
            } catch (SQLException e) {
                check("57014".equals(e.getSQLState()), "canceled with " + e);
            }
            Thread.sleep(3000); // longer than a token is valid
            check(query(connection, "select session_user").equals(user), "user, later");
        }
        try (var connection = connect()) {
            check(query(connection, "select session_user").equals(user), "user of a new connection");
        }
        System.out.println("ok");
    }
}
