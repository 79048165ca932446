package standin;

import java.io.IOException;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.nio.file.attribute.PosixFilePermissions;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.time.LocalDateTime;
import java.time.format.DateTimeFormatter;
import java.util.HashMap;
import java.util.Map;
import java.util.Properties;
import java.util.Scanner;
import java.util.Set;

/**
 * A stand-in for PEC in tests: an installer JAR that behaves as far as the real one's behaviour is public.
 *
 * One JAR under three names is three programs, as with the real one: the installer, migrador.jar and pec.jar (the web
 * server, {@link Server}). Public: arguments, layout, the question on the console, the wish for systemd, the two lines
 * about versions, the refusal of SCRAM, the lock of migrations. Invented: all other lines of the log.
 */
public final class Standin {
    static final Path HOME = Path.of("/opt/e-SUS");
    static final Path WEB = HOME.resolve("webserver");
    private static final Path LOG = WEB.resolve("logs/pec.log");
    private static final Set<String> OPTIONS = Set.of(
            "console", "treinamento", "help", "continue", "url", "username", "password", "restore", "backup",
            "cert-domain", "cert-port");

    private Standin() {}

    /** Runs the program that the JAR's name asks for; every failure is exit code 1. */
    public static void main(String[] arguments) throws Exception {
        Path jar = Path.of(Standin.class.getProtectionDomain().getCodeSource().getLocation().toURI());
        String name = jar.getFileName().toString();
        try {
            if (name.equals("pec.jar")) {
                Server.start(properties());
            } else {
                Map<String, String> options = options(arguments);
                if (options.containsKey("help")) {
                    System.out.println("Argumentos: " + OPTIONS);
                } else if (name.equals("migrador.jar")) {
                    migrate(options);
                } else {
                    install(jar, options);
                }
            }
        } catch (SQLException | IOException | IllegalStateException problem) {
            System.out.println("ERRO: " + problem.getMessage());
            if (name.equals("pec.jar")) {
                log("ERROR", "A aplicação não pôde ser iniciada", problem);
            }
            System.exit(1);
        }
    }

    private static Map<String, String> options(String[] arguments) {
        Map<String, String> found = new HashMap<>();
        for (String argument : arguments) {
            String[] parts = argument.split("=", 2);
            if (!parts[0].startsWith("-") || !OPTIONS.contains(parts[0].substring(1))) {
                throw new IllegalStateException("Argumento desconhecido: " + parts[0]);
            }
            found.put(parts[0].substring(1), parts.length == 2 ? parts[1] : "");
        }
        return found;
    }

    private static void install(Path jar, Map<String, String> options) throws IOException, SQLException {
        if (!options.containsKey("console")) {
            throw new IllegalStateException("No X11 DISPLAY variable was set");
        }
        if (options.containsKey("restore") || options.containsKey("backup")) {
            throw new IllegalStateException("-restore e -backup não existem no instalador de teste");
        }
        if (Files.exists(Path.of("/etc/pec.config"))) {
            throw new IllegalStateException("O PEC já está instalado");
        }
        if (!output("ps", "--no-headers", "-o", "comm", "1").equals("systemd")
                || !output("file", "-L", "/sbin/init").contains("x86-64")) {
            throw new IllegalStateException("O sistema operacional não usa systemd");
        }
        System.out.println("Um Banco de Dados foi configurado manualmente. Deseja continuar? (s/n)");
        if (!options.containsKey("continue") && !new Scanner(System.in).nextLine().trim().equalsIgnoreCase("s")) {
            throw new IllegalStateException("Instalação cancelada");
        }
        try (Connection connection = connect(options.get("url"), options.get("username"), options.get("password"))) {
            unlocked(connection);
            System.out.println("Versão do banco de dados: " + databaseVersion(connection));
        }
        Files.createDirectories(WEB.resolve("config"));
        Files.createDirectories(LOG.getParent());
        Files.copy(jar, WEB.resolve("pec.jar"));
        Files.copy(jar, HOME.resolve("migrador.jar"));
        Properties settings = new Properties();
        settings.setProperty("server.port", "8080");
        settings.setProperty("spring.datasource.url", options.get("url"));
        settings.setProperty("spring.datasource.username", options.get("username"));
        settings.setProperty("spring.datasource.password", options.get("password"));
        try (var writer = Files.newBufferedWriter(WEB.resolve("config/application.properties"))) {
            settings.store(writer, null);
        }
        Path start = WEB.resolve("standalone.sh");
        Files.writeString(start, "#!/bin/sh\ncd " + WEB + " && exec java $JAVA_OPTS -jar pec.jar\n");
        Files.setPosixFilePermissions(start, PosixFilePermissions.fromString("rwxr-xr-x"));
        Files.writeString(Path.of("/etc/pec.config"), "versao=" + version() + "\n");
        output("systemctl", "enable", "e-SUS-PEC.service");
        System.out.println("PEC " + version() + " instalado em " + HOME);
    }

    private static void migrate(Map<String, String> options) throws SQLException {
        try (Connection connection = connect(options.get("url"), options.get("username"), options.get("password"))) {
            unlocked(connection);
            String before = databaseVersion(connection);
            update(connection, "UPDATE tb_config_sistema SET ds_texto = ? WHERE co_config_sistema = 'VERSAOBANCODADOS'",
                    version());
            System.out.println("Banco de dados migrado de " + before + " para " + version());
        }
    }

    private static Properties properties() throws IOException {
        Properties found = new Properties();
        try (var reader = Files.newBufferedReader(WEB.resolve("config/application.properties"))) {
            found.load(reader);
        }
        return found;
    }

    private static String output(String... command) throws IOException {
        Process process = new ProcessBuilder(command).redirectErrorStream(true).start();
        return new String(process.getInputStream().readAllBytes()).trim();
    }

    /** The version of this JAR, which its manifest tells. */
    static String version() {
        return Standin.class.getPackage().getImplementationVersion();
    }

    static Connection connect(String url, String user, String password) throws SQLException {
        try {
            return DriverManager.getConnection(url, user, password);
        } catch (SQLException | NoClassDefFoundError problem) {
            StringWriter trace = new StringWriter();
            problem.printStackTrace(new PrintWriter(trace));
            if (trace.toString().contains("ongres")) { // the part for SCRAM, which is not in this JAR
                throw new SQLException("The authentication type 10 is not supported.");
            }
            throw new SQLException(problem.getMessage());
        }
    }

    /** The version that the database has, by its own account. */
    static String databaseVersion(Connection connection) throws SQLException {
        return text(connection, "SELECT ds_texto FROM tb_config_sistema WHERE co_config_sistema = 'VERSAOBANCODADOS'");
    }

    private static void unlocked(Connection connection) throws SQLException {
        if (text(connection, "SELECT count(*) FROM tb_migracao_trava WHERE locked").equals("0")) {
            return;
        }
        throw new SQLException("Could not acquire change log lock. Currently locked by another process");
    }

    /** The first value of a query, "" where there is none. */
    static String text(Connection connection, String query) throws SQLException {
        try (Statement statement = connection.createStatement(); ResultSet rows = statement.executeQuery(query)) {
            String found = rows.next() ? rows.getString(1) : null;
            return found == null ? "" : found;
        }
    }

    static void update(Connection connection, String command, Object... values) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement(command)) {
            for (int number = 0; number < values.length; number++) {
                statement.setObject(number + 1, values[number]);
            }
            statement.executeUpdate();
        }
    }

    /** Writes to pec.log. */
    static synchronized void log(String level, String message, Throwable problem) {
        String now = LocalDateTime.now().format(DateTimeFormatter.ofPattern("yyyy-MM-dd HH:mm:ss,SSS"));
        StringWriter lines = new StringWriter();
        PrintWriter printer = new PrintWriter(lines);
        printer.printf("%s %-5s [%s] %s%n", now, level, Thread.currentThread().getName(), message);
        if (problem != null) {
            problem.printStackTrace(printer);
        }
        try {
            Files.writeString(LOG, lines.toString(), StandardOpenOption.CREATE, StandardOpenOption.APPEND);
        } catch (IOException failure) {
            System.err.println(failure);
        }
    }

    static void log(String message) {
        log("INFO", message, null);
    }
}
