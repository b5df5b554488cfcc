package clients;

import java.sql.Connection;
import java.sql.SQLException;
import java.time.Instant;
import java.time.OffsetDateTime;

/** The user and the start time of a session, from the server. */
record Session(String user, Instant started) {
    static Session of(Connection connection) throws SQLException {
        String query = "select session_user::text, backend_start from pg_stat_activity where pid = pg_backend_pid()";
        try (var rows = connection.createStatement().executeQuery(query)) {
            rows.next();
            return new Session(rows.getString(1), rows.getObject(2, OffsetDateTime.class).toInstant());
        }
    }
}
