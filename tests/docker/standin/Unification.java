package standin;

import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.List;

/**
 * A unification as far as its screens are public: requested by the source, accepted in the central, then carried out.
 *
 * A person, or a test:
 * <pre>
 *   source   POST /standin/unify?https://central.homolog    asks, waits, and goes on as soon as it was accepted
 *   central  POST /standin/accept   or   /standin/deny
 *   both     GET  /standin/status                            the status shown on the screens
 * </pre>
 * The source asks the central for {@code receive} and {@code run}. No row is sent: what the central receives is in
 * {@code /run/pec/unify.sql} there, which the test has put in place; a line {@code COMMIT;} ends each of its steps.
 * Statuses are public; what PEC keeps in its two tables is not: status and time go into whatever columns can hold them.
 */
final class Unification {
    private static final Path SCRIPT = Path.of("/run/pec/unify.sql");
    private static final String NONE = "Nenhuma solicitação de unificação realizada.";
    private static final String ASKED = "Aguardando aprovação";
    private static final String ACCEPTED = "Aguardando unificação";
    private static final String RUNNING = "Unificando base";
    private static final String DONE = "Base unificada";
    private static final String DENIED = "Solicitação cancelada";
    private static final String BROKEN = "Erro";

    private final Server server;
    private final HttpClient client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
    private final long pause = Long.parseLong(System.getenv().getOrDefault("STANDIN_PAUSE", "500"));
    private volatile String status = NONE;
    private String table;
    private long key;

    Unification(Server server) {
        this.server = server;
    }

    /** Carries out a command, and returns the status after it. */
    synchronized String command(String name, String query) throws SQLException {
        switch (name) {
            case "status":
                break;
            case "unify":
                begin("tb_pedido_envio_base");
                Server.background("envio", () -> guarded(() -> send(query)));
                break;
            case "receive":
                begin("tb_unificacao_base");
                break;
            case "accept":
                proceed(ASKED, ACCEPTED);
                break;
            case "deny":
                proceed(ASKED, DENIED);
                break;
            case "run":
                proceed(ACCEPTED, RUNNING);
                Server.background("recebimento", () -> guarded(this::receive));
                break;
            default:
                throw new IllegalStateException("comando desconhecido: " + name);
        }
        return status;
    }

    /** Asks the central, and follows what it does. */
    private void send(String link) throws Exception {
        remote(link, "POST", "receive");
        String found = await(link, ASKED);
        if (!found.equals(ACCEPTED)) {
            reach(found);
            return;
        }
        reach(ACCEPTED);
        Server.pause(pause); // a person presses "Unificar"
        server.deactivate(false);
        reach(RUNNING);
        remote(link, "POST", "run");
        found = await(link, RUNNING);
        if (found.equals(DONE)) {
            server.deactivate(true);
        }
        reach(found);
    }

    /** The central's status once it is another one than this. */
    private String await(String link, String now) throws Exception {
        String found;
        do {
            Server.pause(pause);
            found = remote(link, "GET", "status");
        } while (found.equals(now));
        return found;
    }

    private String remote(String link, String method, String name) throws Exception {
        HttpRequest request = HttpRequest.newBuilder(URI.create(link + "/standin/" + name))
                .method(method, HttpRequest.BodyPublishers.noBody()).build();
        HttpResponse<String> answer = client.send(request, HttpResponse.BodyHandlers.ofString());
        if (answer.statusCode() != 200) {
            throw new IOException("a instalação central respondeu " + answer.statusCode());
        }
        return answer.body();
    }

    /** Writes what the test has put in place, step by step. */
    private void receive() throws Exception {
        String[] steps = Files.readString(SCRIPT).split("(?m)^COMMIT;\\s*$");
        try (Connection connection = server.connect()) {
            connection.setAutoCommit(false);
            for (int number = 1; number <= steps.length; number++) {
                Server.pause(pause);
                try (Statement statement = connection.createStatement()) {
                    statement.execute(steps[number - 1]);
                }
                connection.commit();
                Standin.log("Unificação de base: etapa " + number + " de " + steps.length + " gravada");
            }
        }
        reach(DONE);
    }

    private synchronized void begin(String name) throws SQLException {
        if (!List.of(NONE, DONE, DENIED).contains(status)) {
            throw new IllegalStateException("Não é possível solicitar uma unificação de bases enquanto possui unificações"
                    + " em andamento.");
        }
        table = name;
        try (Connection connection = server.connect()) {
            String id = columns(connection, "column_name LIKE 'co\\_seq\\_%'").get(0);
            key = Long.parseLong(Standin.text(connection, "SELECT coalesce(max(" + id + "), 0) + 1 FROM " + table));
            Standin.update(connection, "INSERT INTO " + table + " (" + id + ") VALUES (?)", key);
        }
        reach(ASKED);
    }

    private void proceed(String from, String to) throws SQLException {
        if (!status.equals(from)) {
            throw new IllegalStateException("a situação é " + status);
        }
        reach(to);
    }

    /** Shows a new status: on the screens, in the log, and in whatever columns can hold it. */
    private synchronized void reach(String now) throws SQLException {
        Standin.log("Unificação de base: " + now);
        try (Connection connection = server.connect()) {
            String id = columns(connection, "column_name LIKE 'co\\_seq\\_%'").get(0);
            for (String column : columns(connection, "data_type IN ('text', 'character varying')")) {
                Standin.update(connection, "UPDATE " + table + " SET " + column + " = ? WHERE " + id + " = ?", now, key);
            }
            for (String column : columns(connection, "data_type LIKE 'timestamp%' OR data_type = 'date'")) {
                Standin.update(connection, "UPDATE " + table + " SET " + column + " = now() WHERE " + id + " = ?", key);
            }
        }
        status = now;
    }

    private List<String> columns(Connection connection, String condition) throws SQLException {
        String query = "SELECT quote_ident(column_name) FROM information_schema.columns WHERE table_name = ?"
                + " AND table_schema = current_schema() AND (" + condition + ") ORDER BY ordinal_position";
        List<String> found = new ArrayList<>();
        try (PreparedStatement statement = connection.prepareStatement(query)) {
            statement.setString(1, table);
            try (ResultSet rows = statement.executeQuery()) {
                while (rows.next()) {
                    found.add(rows.getString(1));
                }
            }
        }
        return found;
    }

    private interface Work {
        void run() throws Exception;
    }

    private void guarded(Work work) {
        try {
            work.run();
        } catch (Exception problem) {
            Standin.log("ERROR", "Falha na unificação de base", problem);
            status = BROKEN;
        }
    }
}
